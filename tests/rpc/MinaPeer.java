import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import org.apache.mina.core.future.ConnectFuture;
import org.apache.mina.core.service.IoHandlerAdapter;
import org.apache.mina.core.service.IoService;
import org.apache.mina.core.session.IoSession;
import org.apache.mina.filter.codec.ProtocolCodecFilter;
import org.apache.mina.filter.codec.prefixedstring.PrefixedStringCodecFactory;
import org.apache.mina.transport.socket.nio.NioSocketAcceptor;
import org.apache.mina.transport.socket.nio.NioSocketConnector;

/**
 * MINA's own codec of strings behind their length, on both sides.
 *
 * <pre>
 * MinaPeer serve FRAMING...
 * MinaPeer ask CLIENTS CONNECTIONS REQUESTS FRAMING...
 * FRAMING: PORT/PREFIX, the prefix's length in bytes
 * </pre>
 */
final class MinaPeer {
    private final int port;
    private final int prefix;

    private MinaPeer(String framing) {
        String[] parts = framing.split("/");
        port = Integer.parseInt(parts[0]);
        prefix = Integer.parseInt(parts[1]);
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments[0].equals("serve")) {
            for (String framing : Arrays.copyOfRange(arguments, 1, arguments.length)) {
                new MinaPeer(framing).serve();
            }
            return;
        }
        Storm storm = new Storm(arguments[1], arguments[2], arguments[3]);
        for (String framing : Arrays.copyOfRange(arguments, 4, arguments.length)) {
            new MinaPeer(framing).ask(storm);
        }
        storm.say();
    }

    private void serve() throws Exception {
        NioSocketAcceptor acceptor = new NioSocketAcceptor();
        acceptor.setReuseAddress(true);
        speak(acceptor);
        acceptor.setHandler(new IoHandlerAdapter() {
            @Override
            public void messageReceived(IoSession session, Object text) {
                session.write(Storm.answer((String) text));
            }
        });
        acceptor.bind(new InetSocketAddress("127.0.0.1", port));
    }

    private void ask(Storm storm) throws Exception {
        NioSocketConnector connector = new NioSocketConnector();
        speak(connector);
        connector.setHandler(new IoHandlerAdapter() {
            @Override
            public void messageReceived(IoSession session, Object text) {
                received(session).add((String) text);
            }
        });
        storm.rage(name -> {
            ConnectFuture connected = connector.connect(new InetSocketAddress("127.0.0.1", port),
                    (session, future) -> session.setAttribute("received", new LinkedBlockingQueue<String>()));
            IoSession session = connected.await().getSession();
            storm.ask(name, prefix == 1 ? 200 : 5000, session::write, received(session));
            session.closeNow().await();
        });
        connector.dispose();
    }

    @SuppressWarnings("unchecked")
    private static BlockingQueue<String> received(IoSession session) {
        return (BlockingQueue<String>) session.getAttribute("received");
    }

    private void speak(IoService service) {
        PrefixedStringCodecFactory codec = new PrefixedStringCodecFactory(StandardCharsets.UTF_8);
        codec.setEncoderPrefixLength(prefix);
        codec.setDecoderPrefixLength(prefix);
        codec.setDecoderMaxDataLength(1 << 20);
        // The encoder's own limit is that of its prefix or of a million, whichever is less.
        codec.setEncoderMaxDataLength(prefix == 1 ? 255 : prefix == 2 ? 65535 : 1 << 20);
        service.getFilterChain().addLast("codec", new ProtocolCodecFilter(codec));
    }
}
