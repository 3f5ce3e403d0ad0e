import io.anserini.search.query.SdmQueryGenerator;
import org.apache.lucene.analysis.en.EnglishAnalyzer;

/** Anserini's sequential dependence model: DOCUMENTS QUERIES K TW OW UW, files as Queries has. */
public class Dependence {
  public static void main(String[] words) throws Exception {
    Small index = new Small(words[0], "contents");
    float[] weights = new float[3];
    for (int i = 0; i < 3; i++) weights[i] = Float.parseFloat(words[3 + i]);
    SdmQueryGenerator sdm = new SdmQueryGenerator(weights[0], weights[1], weights[2]);
    for (String[] row : Small.rows(words[1], 2))
      index.answer(row[0], sdm.buildQuery("contents", new EnglishAnalyzer(), row[1]),
          Integer.parseInt(words[2]));
  }
}
