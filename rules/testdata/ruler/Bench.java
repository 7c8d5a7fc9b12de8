import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import software.amazon.event.ruler.Machine;

/**
 * Measures event-ruler on one thread: Bench RULES EVENTS ROUNDS SECONDS, two files with a pattern
 * or an event on each line. It prints the CPU-seconds that adding the rules took, or -1 and how many
 * rules it had added when that took longer than SECONDS. Then it warms up and prints for each round
 * how many events it matched in a second of the CPU time of the whole process, garbage collection
 * included, and at last how many matches the events have.
 */
public class Bench {
  private static final com.sun.management.OperatingSystemMXBean SYSTEM =
      (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
  private static final long SECOND = 1_000_000_000L;
  private static final long WARM_UP = 8 * SECOND;

  public static void main(String[] args) throws Exception {
    Machine machine = new Machine();
    int n = 0;
    long from = SYSTEM.getProcessCpuTime();
    for (String pattern : Files.readAllLines(Path.of(args[0]))) {
      machine.addRule("r" + n++, pattern);
      if (SYSTEM.getProcessCpuTime() - from > Long.parseLong(args[3]) * SECOND) {
        System.out.println("-1 " + n);
        return;
      }
    }
    System.out.println((SYSTEM.getProcessCpuTime() - from) / (double) SECOND);
    List<String> events = Files.readAllLines(Path.of(args[1]));
    measure(machine, events, WARM_UP);
    for (int round = Integer.parseInt(args[2]); round > 0; round--) {
      System.out.println(measure(machine, events, SECOND));
    }
    long matches = 0;
    for (String event : events) {
      matches += machine.rulesForJSONEvent(event).size();
    }
    System.out.println(matches);
  }

  private static double measure(Machine machine, List<String> events, long atLeast) throws Exception {
    long from = SYSTEM.getProcessCpuTime();
    long done = 0;
    long took = 0;
    while (took < atLeast) {
      for (String event : events) {
        machine.rulesForJSONEvent(event);
      }
      done += events.size();
      took = SYSTEM.getProcessCpuTime() - from;
    }
    return done * (double) SECOND / took;
  }
}
