import org.apache.lucene.analysis.en.EnglishAnalyzer;
import org.apache.lucene.queryparser.classic.QueryParser;

/** Lucene's answers to structured queries: DOCUMENTS QUERIES K, files of lines of an id and a text. */
public class Queries {
  public static void main(String[] words) throws Exception {
    Small index = new Small(words[0], "contents");
    QueryParser parser = new QueryParser("contents", new EnglishAnalyzer());
    for (String[] row : Small.rows(words[1], 2))
      index.answer(row[0], parser.parse(row[1]), Integer.parseInt(words[2]));
  }
}
