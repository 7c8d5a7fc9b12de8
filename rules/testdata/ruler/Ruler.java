import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import software.amazon.event.ruler.Machine;

/** Answers "pattern TAB event" lines with yes, no or an error, as event-ruler does. */
public class Ruler {
  public static void main(String[] args) throws Exception {
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    PrintStream out = new PrintStream(System.out, false, "UTF-8");
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      String[] pair = line.split("\t");
      String answer;
      try {
        Machine machine = new Machine();
        machine.addRule("rule", pair[0]);
        answer = machine.rulesForJSONEvent(pair[1]).isEmpty() ? "no" : "yes";
      } catch (Exception e) {
        answer = "error " + String.valueOf(e.getMessage()).split("\n")[0];
      }
      out.println(answer);
    }
    out.flush();
  }
}
