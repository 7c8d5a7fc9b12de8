import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import software.amazon.event.ruler.Machine;

/** Answers lines of ["pattern", "event"] with yes, no or an error, as event-ruler does. */
public class Ruler {
  public static void main(String[] args) throws Exception {
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    PrintStream out = new PrintStream(System.out, false, "UTF-8");
    ObjectMapper json = new ObjectMapper();
    String pattern = null;
    Machine machine = null;
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      String[] pair = json.readValue(line, String[].class);
      String answer;
      try {
        if (!pair[0].equals(pattern)) {
          pattern = null;
          machine = new Machine();
          machine.addRule("rule", pair[0]);
          pattern = pair[0];
        }
        answer = machine.rulesForJSONEvent(pair[1]).isEmpty() ? "no" : "yes";
      } catch (Exception e) {
        answer = "error " + String.valueOf(e.getMessage()).split("\n")[0];
      }
      out.println(answer);
    }
    out.flush();
  }
}
