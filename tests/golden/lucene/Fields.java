import java.util.*;
import org.apache.lucene.analysis.en.EnglishAnalyzer;
import org.apache.lucene.index.Term;
import org.apache.lucene.sandbox.search.CombinedFieldQuery;
import org.apache.lucene.search.*;
import org.apache.lucene.search.similarities.BM25Similarity;

/**
 * Lucene's answers over fields: DOCUMENTS QUERIES K K1 B, and weights of title, text and author.
 * `sum` adds boosted clauses, one a field, as Anserini does; `combined` is CombinedFieldQuery.
 */
public class Fields {
  static final String[] NAMES = {"title", "text", "author"};

  public static void main(String[] words) throws Exception {
    Small index = new Small(words[0], NAMES);
    index.searcher.setSimilarity(
        new BM25Similarity(Float.parseFloat(words[3]), Float.parseFloat(words[4])));
    float[] weights = new float[3];
    for (int i = 0; i < 3; i++) weights[i] = Float.parseFloat(words[5 + i]);
    for (String[] row : Small.rows(words[1], 2)) {
      Map<String, Integer> counts = new LinkedHashMap<>();
      for (String term : Answers.terms(new EnglishAnalyzer(), row[1])) counts.merge(term, 1, Integer::sum);
      BooleanQuery.Builder sum = new BooleanQuery.Builder(), combined = new BooleanQuery.Builder();
      for (int i = 0; i < 3; i++) {
        if (weights[i] == 0) continue;
        BooleanQuery.Builder field = new BooleanQuery.Builder();
        for (Map.Entry<String, Integer> entry : counts.entrySet())
          field.add(new BoostQuery(new TermQuery(new Term(NAMES[i], entry.getKey())),
              entry.getValue()), BooleanClause.Occur.SHOULD);
        sum.add(new BoostQuery(field.build(), weights[i]), BooleanClause.Occur.SHOULD);
      }
      for (Map.Entry<String, Integer> entry : counts.entrySet()) {
        CombinedFieldQuery.Builder term = new CombinedFieldQuery.Builder().addTerm(
            new org.apache.lucene.util.BytesRef(entry.getKey()));
        for (int i = 0; i < 3; i++) if (weights[i] != 0) term.addField(NAMES[i], weights[i]);
        combined.add(new BoostQuery(term.build(), entry.getValue()), BooleanClause.Occur.SHOULD);
      }
      int k = Integer.parseInt(words[2]);
      index.answer("sum\t" + row[0], sum.build(), k);
      index.answer("combined\t" + row[0], combined.build(), k);
    }
  }
}
