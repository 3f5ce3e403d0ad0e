import io.anserini.search.SimpleSearcher;
import java.lang.management.*;
import java.nio.file.*;
import java.util.*;
import org.apache.lucene.analysis.en.EnglishAnalyzer;
import org.apache.lucene.document.*;
import org.apache.lucene.index.*;
import org.apache.lucene.search.similarities.BM25Similarity;
import org.apache.lucene.store.FSDirectory;
import org.apache.lucene.util.BytesRef;

/** Anserini's RM3, warm: `index CORPUS.jsonl FOLDER` keeps term vectors, `bench FOLDER QUERIES.tsv K PASSES` repeats the queries in one virtual machine and prints mean CPU ms per query, the best of the passes. */
public class Rm3 {
  static void index(Path corpus, Path folder) throws Exception {
    var json = new com.fasterxml.jackson.databind.ObjectMapper();
    var config = new IndexWriterConfig(new EnglishAnalyzer());
    config.setRAMBufferSizeMB(1024);
    config.setSimilarity(new BM25Similarity(0.9f, 0.4f));
    var type = new FieldType();
    type.setTokenized(true);
    type.setStoreTermVectors(true);
    type.setIndexOptions(IndexOptions.DOCS_AND_FREQS);
    type.freeze();
    try (var writer = new IndexWriter(FSDirectory.open(folder), config); var lines = Files.newBufferedReader(corpus)) {
      for (String line; (line = lines.readLine()) != null; ) {
        var record = json.readTree(line);
        String id = record.get("id").asText();
        var document = new Document();
        document.add(new StringField("id", id, Field.Store.YES));
        document.add(new BinaryDocValuesField("id", new BytesRef(id)));
        document.add(new Field("contents", record.get("contents").asText(), type));
        writer.addDocument(document);
      }
      writer.forceMerge(1);
    }
  }

  static double pass(SimpleSearcher searcher, List<String> queries, int k) throws Exception {
    ThreadMXBean threads = ManagementFactory.getThreadMXBean();
    long start = threads.getCurrentThreadCpuTime();
    for (String query : queries) searcher.search(query, k);
    return (threads.getCurrentThreadCpuTime() - start) / 1e6 / queries.size();
  }

  public static void main(String[] words) throws Exception {
    if (words[0].equals("index")) {
      index(Path.of(words[1]), Path.of(words[2]));
      return;
    }
    var queries = new ArrayList<String>();
    for (String line : Files.readAllLines(Path.of(words[2]))) queries.add(line.split("\t", 2)[1]);
    double best = Double.MAX_VALUE;
    try (var searcher = new SimpleSearcher(words[1])) {
      searcher.set_bm25(0.9f, 0.4f);
      searcher.set_rm3();
      for (int i = 0; i < Integer.parseInt(words[4]); i++)
        best = Math.min(best, pass(searcher, queries, Integer.parseInt(words[3])));
    }
    System.out.println("mean " + best);
  }
}
