command -v javac >/dev/null || { echo "no javac" >&2; exit 77; }
set -eu
cat >Hello.java <<'EOF'
import java.nio.file.*; import java.util.*; import java.util.concurrent.*; import java.util.concurrent.atomic.*;
public class Hello {
  public static void main(String[] a) throws Exception {
    var sum = new AtomicLong(); var threads = new ArrayList<Thread>();
    for (int i = 0; i < 20; i++) { final int n = i; var t = new Thread(() -> { for (int k = 0; k < 1000; k++) sum.addAndGet(n); }); t.start(); threads.add(t); }
    for (var t : threads) t.join();
    System.out.println("threads " + sum);
    Files.writeString(Path.of("out"), "text\n".repeat(1000)); System.out.println(Files.readAllLines(Path.of("out")).size());
    var process = new ProcessBuilder("echo", "child").start(); System.out.print(new String(process.getInputStream().readAllBytes())); System.out.println(process.waitFor());
    var garbage = new ArrayList<byte[]>(); for (int i = 0; i < 2000; i++) { garbage.add(new byte[100000]); if (garbage.size() > 100) garbage.clear(); }
    try { Object o = null; o.hashCode(); } catch (NullPointerException e) { System.out.println("null caught"); }
    try { recurse(0); } catch (StackOverflowError e) { System.out.println("overflow caught"); }
    System.out.println(ForkJoinPool.commonPool().submit(() -> java.util.stream.IntStream.range(0, 100000).parallel().sum()).get());
  }
  static int recurse(int n) { return recurse(n + 1) + 1; }
}
EOF
java -version 2>&1 | head -n 1 | cut -d' ' -f1
javac Hello.java; java -Xmx256m Hello
