import java.nio.file.*;
import java.util.*;
import org.apache.lucene.analysis.en.EnglishAnalyzer;
import org.apache.lucene.document.*;
import org.apache.lucene.index.*;
import org.apache.lucene.search.*;
import org.apache.lucene.search.similarities.BM25Similarity;
import org.apache.lucene.store.ByteBuffersDirectory;

/** An index of a file's lines, each an id and texts of fields with tabs between, and its search. */
class Small {
  final IndexReader reader;
  final IndexSearcher searcher;

  Small(String file, String... fields) throws Exception {
    ByteBuffersDirectory folder = new ByteBuffersDirectory();
    IndexWriterConfig config = new IndexWriterConfig(new EnglishAnalyzer());
    try (IndexWriter writer = new IndexWriter(folder, config)) {
      for (String[] parts : rows(file, fields.length + 1)) {
        Document document = new Document();
        document.add(new StringField("id", parts[0], Field.Store.YES));
        for (int i = 0; i < fields.length; i++)
          document.add(new TextField(fields[i], parts[i + 1], Field.Store.NO));
        writer.addDocument(document);
      }
      writer.forceMerge(1);
    }
    reader = DirectoryReader.open(folder);
    searcher = new IndexSearcher(reader);
    searcher.setSimilarity(new BM25Similarity(0.9f, 0.4f));
  }

  static List<String[]> rows(String file, int columns) throws Exception {
    List<String[]> rows = new ArrayList<>();
    for (String line : Files.readAllLines(Paths.get(file))) rows.add(line.split("\t", columns));
    return rows;
  }

  /** Writes lines of what they begin with, a document's id, its score, and how many match. */
  void answer(String start, Query query, int k) throws Exception {
    int matches = searcher.count(query);
    for (ScoreDoc hit : searcher.search(query, k).scoreDocs) {
      String id = reader.storedFields().document(hit.doc).get("id");
      System.out.println(start + "\t" + id + "\t" + hit.score + "\t" + matches);
    }
  }
}
