//! What becomes of each command.

use super::*;

const fn refused(reply: &'static [u8]) -> Treatment {
    Treatment::Refuse(Refusal { reply })
}

const fn shown(shape: Shape) -> (Shape, Hidden) {
    (shape, Hidden::Nothing)
}

/// A line, the shape of its reply and what of it is hidden, and whether it only reads.
const SHARED: &[(&[u8], (Shape, Hidden), bool)] = &[
    (b"get a", shown(Shape::Values), true),
    (b"gets a b  c ", shown(Shape::Values), true),
    (b" get noreply", shown(Shape::Values), true),
    (b"gat 0 a", shown(Shape::Values), false),
    (b"gats 0 a", shown(Shape::Values), false),
    (b"set a 0 0 1", shown(Shape::Stored), false),
    (b"cas a 0 0 1 5", shown(Shape::Stored), false),
    (b"add a 0 0 1 noreply", (Shape::Stored, Hidden::All), false),
    (
        b"cas a 0 0 1 5 noreply",
        (Shape::Stored, Hidden::All),
        false,
    ),
    (b"delete a", shown(Shape::Deleted), false),
    (b"delete noreply", shown(Shape::Deleted), false),
    (b"delete a noreply", (Shape::Deleted, Hidden::All), false),
    (b"delete a 0 noreply", (Shape::Deleted, Hidden::All), false),
    (b"touch a 1", shown(Shape::Touched), false),
    (b"touch a 1 noreply", (Shape::Touched, Hidden::All), false),
    (b"touch a noreply", (Shape::Touched, Hidden::All), false),
    (b"incr a 1", shown(Shape::Number), false),
    (b"decr a 1 noreply", (Shape::Number, Hidden::All), false),
    (b"version", shown(Shape::Version), true),
    (b"verbosity 1", shown(Shape::AnyLine), false),
    (b"verbosity noreply", (Shape::AnyLine, Hidden::All), false),
    (b"flush_all", shown(Shape::AnyLine), false),
    (b"flush_all noreply", (Shape::AnyLine, Hidden::All), false),
    (b"flush_all 9 noreply", (Shape::AnyLine, Hidden::All), false),
    (b"cache_memlimit 64", shown(Shape::AnyLine), false),
    (b"slabs reassign 1 noreply", shown(Shape::AnyLine), false),
    (
        b"slabs automove 1 noreply",
        (Shape::AnyLine, Hidden::All),
        false,
    ),
    (
        b"lru mode flat noreply",
        (Shape::AnyLine, Hidden::All),
        false,
    ),
    (b"lru_crawler crawl all", shown(Shape::AnyLine), false),
    (b"lru_crawler enable", shown(Shape::AnyLine), false),
    (b"extstore max_sleep 5", shown(Shape::AnyLine), false),
    (b"refresh_certs", shown(Shape::AnyLine), false),
    (
        b"refresh_certs noreply",
        (Shape::AnyLine, Hidden::Success),
        false,
    ),
    (b"stats", shown(Shape::Statistics), true),
    (b"stats items", shown(Shape::Statistics), true),
    (b"stats reset", shown(Shape::Statistics), false),
    (b"stats detail on", shown(Shape::Statistics), false),
    (b"mg a", shown(Shape::MetaGet), true),
    (b"mg q", shown(Shape::MetaGet), true),
    (b"mg a v Oq", shown(Shape::MetaGet), true),
    (b"mg a v N30", shown(Shape::MetaGet), false),
    (b"mg a q v", (Shape::MetaGet, Hidden::Miss), true),
    (b"mg a v qq", (Shape::MetaGet, Hidden::Miss), true),
    (b"ms a 1", shown(Shape::MetaSet), false),
    (b"ms q 1 T0 q", (Shape::MetaSet, Hidden::Success), false),
    (b"md a", shown(Shape::MetaDelete), false),
    (b"md a q", (Shape::MetaDelete, Hidden::Success), false),
    (b"ma a q v", (Shape::MetaArithmetic, Hidden::Success), false),
    (b"me a q", shown(Shape::MetaDebug), true),
];

#[test]
fn what_is_shared_says_what_its_reply_may_be() {
    for (line, (shape, hidden), read_only) in SHARED {
        let request = [line, &b"\r\n"[..]].concat();
        let expected = Shared {
            kind: Kind {
                shape: *shape,
                hidden: *hidden,
            },
            read_only: *read_only,
            armed: *hidden != Hidden::Nothing,
        };
        assert_eq!(shared(&request), expected, "{}", text(line));
        // The line alone says it, with either end.
        let request = [line, &b"\nx\r\n"[..]].concat();
        assert_eq!(shared(&request), expected, "{}", text(line));
    }
}

#[test]
fn what_never_reaches_the_service_has_an_answer() {
    let error = refused(b"ERROR\r\n");
    let format = refused(b"CLIENT_ERROR bad command line format\r\n");
    let silent = refused(b"");
    let long = format!("get a {}", "k".repeat(251));
    let meta_long = format!("mg {}", "k".repeat(251));
    let flags = format!("mg a{}", " v".repeat(18));
    let too_many_flags = refused(b"CLIENT_ERROR options flags are too long\r\n");
    let many_words = format!("lru{} noreply", " x".repeat(22));
    let rows: &[(&[u8], Treatment)] = &[
        (b"", error),
        (b" ", error),
        (b"x", error),
        (b"nonsense", error),
        (b"GET a", error),
        (b"get", error),
        (b"gat 0", error),
        (b"mg", error),
        (b"ms", error),
        (b"mx a", error),
        (b"touch noreply", error),
        (b"incr a 1 noreply x", error),
        (b"delete", error),
        (b"set a 0 0", error),
        (b"set a 0 0 1 noreply x", error),
        (b"flush_all 1 2 noreply", error),
        (many_words.as_bytes(), error),
        (b"get a\0b", format),
        (b"set a 0 0 -1", format),
        (b"set a 0 0 +1", format),
        (b"set a 0 0 1\t", format),
        (b"set a 0 0 x noreply", silent),
        (b"flush_all noreply noreply", silent),
        (b"delete a noreply noreply", silent),
        (b"set a 0 0 99999999999999999999", format),
        (b"ms a", format),
        (b"ms a S1", format),
        (b"ms a x q", format),
        (long.as_bytes(), format),
        (meta_long.as_bytes(), format),
        (b"mg a q q", refused(b"CLIENT_ERROR duplicate flag\r\n")),
        (flags.as_bytes(), too_many_flags),
        (
            b"watch",
            refused(b"CLIENT_ERROR watch commands not allowed\r\n"),
        ),
        (b"watch fetchers noreply", silent),
        (b"shutdown", refused(b"ERROR: shutdown not enabled\r\n")),
        (
            b"lru_crawler metadump all",
            refused(b"ERROR metadump not allowed\r\n"),
        ),
        (
            b"lru_crawler mgdump all",
            refused(b"ERROR mgdump not allowed\r\n"),
        ),
        (b"mn", Treatment::Answer(Local::Say(b"MN\r\n"))),
        (b"quit", Treatment::Answer(Local::Close)),
        (b"quit now", Treatment::Answer(Local::Close)),
        (b"GET / HTTP/1.1", Treatment::Answer(Local::Close)),
    ];
    for (line, expected) in rows {
        let request = [line, &b"\r\n"[..]].concat();
        assert_eq!(treatment(&request), *expected, "{}", text(line));
    }
}

#[test]
fn what_asks_for_silence_goes_on_without_that_word() {
    let rows: &[(&[u8], &[u8])] = &[
        (b"set a 0 0 2 noreply\r\nhi\r\n", b"set a 0 0 2\r\nhi\r\n"),
        (b"set a 0 0 2 noreply \nhi", b"set a 0 0 2 \nhi"),
        (
            b"set a 0 0 9\r\n noreply\r\n",
            b"set a 0 0 9\r\n noreply\r\n",
        ),
        (b"cas a 0 0 2 7  noreply\r\n", b"cas a 0 0 2 7 \r\n"),
        (b"delete noreply noreply\r\n", b"delete noreply\r\n"),
        (b"delete noreply\r\n", b"delete noreply\r\n"),
        (b"flush_all noreply\r\n", b"flush_all\r\n"),
        (b"incr a 1 NOREPLY\r\n", b"incr a 1 NOREPLY\r\n"),
        (b"get a noreply\r\n", b"get a noreply\r\n"),
        (b"mg q q v\r\n", b"mg q v\r\n"),
        (b"mg q v q\n", b"mg q v\n"),
        (b"ms q 2 q T0\r\nhi\r\n", b"ms q 2 T0\r\nhi\r\n"),
        (b"md a Oq qx\r\n", b"md a Oq\r\n"),
        (b"ma a q\r\n", b"ma a\r\n"),
        (b"me a q\r\n", b"me a q\r\n"),
    ];
    for (request, expected) in rows {
        assert_eq!(text(&disarmed(request)), text(expected));
    }
}

#[test]
fn a_refusal_of_the_binary_protocol_is_a_response_of_it() {
    let mut reply = Vec::new();
    let violation = RequestViolation::Binary {
        opcode: 0x0a,
        opaque: [1, 2, 3, 4],
    };
    violation.write_reply(&mut reply);
    let header = b"\x81\x0a\0\0\0\0\0\x81\0\0\0\x0f\x01\x02\x03\x04\0\0\0\0\0\0\0\0";
    assert_eq!(
        text(&reply),
        text(&[&header[..], b"Unknown command"].concat())
    );
    assert!(violation.ends_session());
}
