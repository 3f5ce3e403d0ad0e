import java.io.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import io.anserini.search.query.QuerySideBm25QueryGenerator;
import io.anserini.search.similarity.AccurateBM25Similarity;
import org.apache.lucene.analysis.*;
import org.apache.lucene.analysis.core.KeywordTokenizer;
import org.apache.lucene.analysis.en.*;
import org.apache.lucene.analysis.tokenattributes.CharTermAttribute;
import org.apache.lucene.document.*;
import org.apache.lucene.index.*;
import org.apache.lucene.search.*;
import org.apache.lucene.search.similarities.*;
import org.apache.lucene.store.ByteBuffersDirectory;

/**
 * Lucene's answers: `stems` and `tokens` of the lines of standard input, tokens of its `languages`
 * (a code, tab, text; ja by CJKAnalyzer), or a `run` of
 * IDS TEXTS QUERIES K, files of equal numbers of lines (queries: id, tab, text); with models behind
 * K a run of each, which it begins the lines with.
 */
public class Answers {
  static List<String> terms(Analyzer analyzer, String text) throws IOException {
    List<String> terms = new ArrayList<>();
    try (TokenStream stream = analyzer.tokenStream("contents", text)) {
      CharTermAttribute term = stream.addAttribute(CharTermAttribute.class);
      stream.reset();
      while (stream.incrementToken()) terms.add(term.toString());
      stream.end();
    }
    return terms;
  }

  public static void main(String[] words) throws Exception {
    Analyzer english = new EnglishAnalyzer();
    Analyzer porter = new Analyzer() {
      protected TokenStreamComponents createComponents(String field) {
        Tokenizer whole = new KeywordTokenizer();
        return new TokenStreamComponents(whole, new PorterStemFilter(whole));
      }
    };
    PrintStream out = new PrintStream(System.out, false, "UTF-8");
    if (words[0].equals("run")) run(english, words, out);
    else if (words[0].equals("languages")) languages(out);
    else {
      Analyzer analyzer = words[0].equals("stems") ? porter : english;
      BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
      for (String line; (line = in.readLine()) != null; )
        out.println(String.join(" ", terms(analyzer, line)));
    }
    out.flush();
  }

  static final String NAMES =
      "ar.Arabic bn.Bengali da.Danish de.German es.Spanish fa.Persian fi.Finnish fr.French hi.Hindi "
          + "hu.Hungarian id.Indonesian it.Italian nl.Dutch no.Norwegian pt.Portuguese ru.Russian "
          + "sv.Swedish te.Telugu tr.Turkish ja:cjk.CJK ko:cjk.CJK zh:cjk.CJK";

  static void languages(PrintStream out) throws Exception {
    Map<String, Analyzer> analyzers = new HashMap<>();
    for (String name : NAMES.split(" ")) {
      Class<?> type = Class.forName(
          "org.apache.lucene.analysis." + name.substring(name.indexOf(':') + 1) + "Analyzer");
      Analyzer analyzer = (Analyzer) type.getDeclaredConstructor().newInstance();
      analyzers.put(name.substring(0, 2), analyzer);
    }
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line; (line = in.readLine()) != null; ) {
      String[] parts = line.split("\t", 2);
      out.println(String.join(" ", terms(analyzers.get(parts[0]), parts[1])));
    }
  }

  static Similarity similarity(String model) {
    switch (model) {
      case "qld": return new LMDirichletSimilarity(1000f);
      case "qljm": return new LMJelinekMercerSimilarity(0.1f);
      case "inl2":
        return new DFRSimilarity(new BasicModelIn(), new AfterEffectL(), new NormalizationH2(0.1f));
      case "spl":
        return new IBSimilarity(new DistributionSPL(), new LambdaDF(), new NormalizationH2(0.1f));
      case "f2exp": return new AxiomaticF2EXP(0.5f);
      case "f2log": return new AxiomaticF2LOG(0.5f);
      case "accurate": return new AccurateBM25Similarity(0.9f, 0.4f);
      default: return new BM25Similarity(0.9f, 0.4f);
    }
  }

  static void run(Analyzer english, String[] words, PrintStream out) throws Exception {
    List<String> ids = Files.readAllLines(Paths.get(words[1]));
    List<String> texts = Files.readAllLines(Paths.get(words[2]));
    if (words.length == 5) answer(english, "bm25", "", ids, texts, words, out);
    for (int i = 5; i < words.length; i++)
      answer(english, words[i], words[i] + "\t", ids, texts, words, out);
  }

  static void answer(Analyzer english, String model, String start, List<String> ids,
      List<String> texts, String[] words, PrintStream out) throws Exception {
    ByteBuffersDirectory directory = new ByteBuffersDirectory();
    IndexWriterConfig config = new IndexWriterConfig(english);
    config.setSimilarity(similarity(model));
    FieldType type = new FieldType();
    type.setTokenized(true);
    type.setIndexOptions(IndexOptions.DOCS_AND_FREQS);
    type.freeze();
    try (IndexWriter writer = new IndexWriter(directory, config)) {
      for (int i = 0; i < ids.size(); i++) {
        Document document = new Document();
        document.add(new StoredField("id", ids.get(i)));
        document.add(new Field("contents", texts.get(i), type));
        writer.addDocument(document);
      }
      writer.forceMerge(1);
    }
    DirectoryReader reader = DirectoryReader.open(directory);
    IndexSearcher searcher = new IndexSearcher(reader);
    searcher.setSimilarity(similarity(model));
    for (String line : Files.readAllLines(Paths.get(words[3]))) {
      String[] query = line.split("\t", 2);
      Map<String, Integer> counts = new LinkedHashMap<>();
      for (String term : terms(english, query[1])) counts.merge(term, 1, Integer::sum);
      BooleanQuery.Builder terms = new BooleanQuery.Builder();
      for (Map.Entry<String, Integer> entry : counts.entrySet()) {
        Query term = new TermQuery(new Term("contents", entry.getKey()));
        terms.add(new BoostQuery(term, entry.getValue()), BooleanClause.Occur.SHOULD);
      }
      Query whole = model.equals("queryside")
          ? new QuerySideBm25QueryGenerator(0.9f, 0.4f, reader).buildQuery("contents", english, query[1])
          : terms.build();
      for (ScoreDoc hit : searcher.search(whole, Integer.parseInt(words[4])).scoreDocs)
        out.println(
            start + query[0] + "\t" + ids.get(hit.doc) + "\t" + Float.toString(hit.score));
    }
  }
}
