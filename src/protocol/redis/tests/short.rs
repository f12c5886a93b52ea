//! What short replies say.

use super::*;

#[test]
fn short_replies_say_what_they_are() {
    let rows: &[(&[u8], Short<'_>)] = &[
        (b"+OK\r\n", Short::Ok),
        (b"+RESET\r\n", Short::Reset),
        (b"+PONG\r\n", Short::Status(b"PONG")),
        (b"+ok\r\n", Short::Status(b"ok")),
        (
            b"-NOAUTH Authentication required.\r\n",
            Short::Error(b"NOAUTH Authentication required."),
        ),
        (b"-\r\n", Short::Error(b"")),
        (b"!5\r\nERR x\r\n", Short::Error(b"ERR x")),
        (b"!5\r\nERR xy\r\n", Short::Other),
        (b":-7\r\n", Short::Integer(-7)),
        (b"$-1\r\n", Short::Null),
        (b"*-1\r\n", Short::Null),
        (b"_\r\n", Short::Null),
        (b"", Short::Other),
        (b"-ERR", Short::Other),
        (b"+OK\r\n+OK\r\n", Short::Other),
        (b":1\r\n:2\r\n", Short::Other),
        (b"$2\r\nOK\r\n", Short::Other),
        (b"*1\r\n-ERR\r\n", Short::Other),
    ];
    for (reply, expected) in rows {
        assert_eq!(inspect(reply), *expected, "{}", text(reply));
    }
}

#[test]
fn confirmations_tell_how_many_subscriptions_are_left() {
    let of = |is_sharded| move |left| Some(Confirmation { is_sharded, left });
    let (plain, sharded) = (of(false), of(true));
    let rows: &[(&[u8], Option<Confirmation>)] = &[
        (b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", plain(1)),
        (
            b">3\r\n$10\r\npsubscribe\r\n$3\r\na\r\n\r\n:12\r\n",
            plain(12),
        ),
        (b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n", plain(0)),
        (b">3\r\n$12\r\npunsubscribe\r\n_\r\n:0\r\n", plain(0)),
        (b"*3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:2\r\n", sharded(2)),
        (
            b"*3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n",
            sharded(0),
        ),
        (b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n", None),
        (b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n:1\r\n", None),
        (b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n+", None),
        (b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1", None),
        (b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:-1\r\n", None),
        (b"*2\r\n$9\r\nsubscribe\r\n:1\r\n", None),
        (b"+OK\r\n", None),
    ];
    for (value, expected) in rows {
        assert_eq!(confirmation(value), *expected, "{}", text(value));
    }
}
