import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;

/**
 * Many short-lived clients at once, each with a name of its own in all that it asks.
 *
 * Not here: any protocol, or how a connection is made.
 */
final class Storm {
    /** Until a reply that does not come counts as lost: more than a busy machine needs. */
    private static final int PATIENCE_SECONDS = 15;

    private final int clients;
    private final int connections;
    private final int requests;
    private final AtomicInteger replies = new AtomicInteger();

    Storm(String clients, String connections, String requests) {
        this.clients = Integer.parseInt(clients);
        this.connections = Integer.parseInt(connections);
        this.requests = Integer.parseInt(requests);
    }

    /** The life of one connection: it asks its share of requests with {@link #ask}. */
    interface Conversation {
        void hold(String name) throws Exception;
    }

    /** Lets so many clients hold their conversations at a time, one connection after the other. */
    void rage(Conversation conversation) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(clients);
        List<Future<?>> lives = new ArrayList<>();
        for (int client = 0; client < clients; client++) {
            String of = String.valueOf(client);
            lives.add(pool.submit(() -> {
                for (int connection = 0; connection < connections; connection++) {
                    conversation.hold(of + "-" + connection);
                }
                return null;
            }));
        }
        try {
            for (Future<?> life : lives) {
                life.get();
            }
        } catch (ExecutionException broken) {
            // The other threads would keep the program alive until they have lost patience too.
            broken.printStackTrace();
            System.exit(1);
        }
        pool.shutdown();
    }

    /**
     * One connection's requests, of at most so many bytes. Every other connection sends all of them
     * before it looks at a reply.
     */
    void ask(String name, int bytesMax, Consumer<String> send, BlockingQueue<String> received)
            throws Exception {
        boolean isPipelined = name.endsWith("1") || name.endsWith("3");
        List<String> expected = new ArrayList<>();
        for (int request = 0; request < requests; request++) {
            // Two bytes of one letter: the length on the wire is not the length of the text.
            String tag = "mühle-" + name + "-" + request + "-";
            String text = tag + "x".repeat(request * 37 % (bytesMax - tag.length() - 1));
            expected.add(answer(text));
            send.accept(text);
            if (!isPipelined) {
                check(received, expected.remove(0));
            }
        }
        for (String text : expected) {
            check(received, text);
        }
    }

    /** Says how many replies came; each was its own. */
    void say() {
        System.err.println(replies + " replies, 0 one-way");
    }

    /** What the services answer. */
    static String answer(String text) {
        return new StringBuilder(text).reverse().toString();
    }

    private void check(BlockingQueue<String> received, String expected) throws Exception {
        String reply = received.poll(PATIENCE_SECONDS, TimeUnit.SECONDS);
        if (!expected.equals(reply)) {
            throw new IllegalStateException("not its own reply: " + reply + " for " + expected);
        }
        replies.incrementAndGet();
    }
}
