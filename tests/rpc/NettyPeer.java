import io.netty.bootstrap.Bootstrap;
import io.netty.bootstrap.ServerBootstrap;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.channel.socket.nio.NioSocketChannel;
import io.netty.handler.codec.LengthFieldBasedFrameDecoder;
import io.netty.handler.codec.LengthFieldPrepender;
import io.netty.handler.codec.string.StringDecoder;
import io.netty.handler.codec.string.StringEncoder;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.function.Consumer;

/**
 * Netty's own length-field codecs on both sides.
 *
 * <pre>
 * NettyPeer serve FRAMING...
 * NettyPeer ask CLIENTS CONNECTIONS REQUESTS FRAMING...
 * FRAMING: PORT/WIDTH/payload|all/big|little, what the length counts and its byte order
 * </pre>
 */
final class NettyPeer {
    private static final EventLoopGroup LOOP = new NioEventLoopGroup(2);

    private final int port;
    private final int width;
    private final boolean countsItself;
    private final ByteOrder order;

    private NettyPeer(String framing) {
        String[] parts = framing.split("/");
        port = Integer.parseInt(parts[0]);
        width = Integer.parseInt(parts[1]);
        countsItself = parts[2].equals("all");
        order = parts[3].equals("big") ? ByteOrder.BIG_ENDIAN : ByteOrder.LITTLE_ENDIAN;
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments[0].equals("serve")) {
            for (String framing : Arrays.copyOfRange(arguments, 1, arguments.length)) {
                new NettyPeer(framing).serve();
            }
            return;
        }
        Storm storm = new Storm(arguments[1], arguments[2], arguments[3]);
        for (String framing : Arrays.copyOfRange(arguments, 4, arguments.length)) {
            NettyPeer peer = new NettyPeer(framing);
            storm.rage(name -> peer.converse(storm, name));
        }
        storm.say();
        // Every connection is closed; an orderly end of Netty's loops would take another second.
        System.exit(0);
    }

    private void serve() throws Exception {
        new ServerBootstrap()
                .group(LOOP)
                .channel(NioServerSocketChannel.class)
                .childHandler(framed((context, text) -> context.writeAndFlush(Storm.answer(text))))
                .bind("127.0.0.1", port)
                .sync();
    }

    private void converse(Storm storm, String name) throws Exception {
        BlockingQueue<String> received = new LinkedBlockingQueue<>();
        Channel channel = new Bootstrap()
                .group(LOOP)
                .channel(NioSocketChannel.class)
                .handler(framed((context, text) -> received.add(text)))
                .connect("127.0.0.1", port)
                .sync()
                .channel();
        Consumer<String> send = channel::writeAndFlush;
        storm.ask(name, width == 1 ? 200 : 5000, send, received);
        channel.close().sync();
    }

    private interface Handler {
        void take(ChannelHandlerContext context, String text);
    }

    private ChannelInitializer<Channel> framed(Handler handler) {
        return new ChannelInitializer<>() {
            @Override
            protected void initChannel(Channel channel) {
                int adjustment = countsItself ? -width : 0;
                channel.pipeline().addLast(
                        new LengthFieldBasedFrameDecoder(order, 1 << 20, 0, width, adjustment, width, true),
                        new LengthFieldPrepender(order, width, 0, countsItself),
                        new StringDecoder(StandardCharsets.UTF_8),
                        new StringEncoder(StandardCharsets.UTF_8),
                        new SimpleChannelInboundHandler<String>() {
                            @Override
                            protected void channelRead0(ChannelHandlerContext context, String text) {
                                handler.take(context, text);
                            }
                        });
            }
        };
    }
}
