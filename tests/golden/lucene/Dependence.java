import io.anserini.search.query.SdmQueryGenerator;
import java.nio.file.*;
import org.apache.lucene.analysis.en.EnglishAnalyzer;
import org.apache.lucene.document.*;
import org.apache.lucene.index.*;
import org.apache.lucene.search.*;
import org.apache.lucene.search.similarities.BM25Similarity;
import org.apache.lucene.store.ByteBuffersDirectory;

/**
 * Anserini's sequential dependence model: DOCUMENTS QUERIES K TW OW UW, files of lines of an id, a
 * tab and a text; writes lines of a query's id, a document's, the score and how many match.
 */
public class Dependence {
  public static void main(String[] words) throws Exception {
    ByteBuffersDirectory folder = new ByteBuffersDirectory();
    IndexWriterConfig config = new IndexWriterConfig(new EnglishAnalyzer());
    try (IndexWriter writer = new IndexWriter(folder, config)) {
      for (String line : Files.readAllLines(Paths.get(words[0]))) {
        String[] parts = line.split("\t", 2);
        Document document = new Document();
        document.add(new StringField("id", parts[0], Field.Store.YES));
        document.add(new TextField("contents", parts[1], Field.Store.NO));
        writer.addDocument(document);
      }
    }
    IndexReader reader = DirectoryReader.open(folder);
    IndexSearcher searcher = new IndexSearcher(reader);
    searcher.setSimilarity(new BM25Similarity(0.9f, 0.4f));
    float[] weights = new float[3];
    for (int i = 0; i < 3; i++) weights[i] = Float.parseFloat(words[3 + i]);
    SdmQueryGenerator generator = new SdmQueryGenerator(weights[0], weights[1], weights[2]);
    for (String line : Files.readAllLines(Paths.get(words[1]))) {
      String[] parts = line.split("\t", 2);
      Query query = generator.buildQuery("contents", new EnglishAnalyzer(), parts[1]);
      int matches = searcher.count(query);
      for (ScoreDoc hit : searcher.search(query, Integer.parseInt(words[2])).scoreDocs) {
        String id = reader.storedFields().document(hit.doc).get("id");
        System.out.println(parts[0] + " " + id + " " + hit.score + " " + matches);
      }
    }
  }
}
