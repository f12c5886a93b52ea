//! Lines of words, as Redis splits them.

use super::*;

/// What the line becomes.
fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, RequestViolation> {
    let mut out = b"before".to_vec();
    let result = canonical(line, &mut out);
    let command = out.strip_prefix(b"before").unwrap();
    if let Err(violation) = result {
        assert!(command.is_empty(), "{}", text(line));
        return Err(violation);
    }
    let arguments = Arguments::new(command);
    let words: Vec<Vec<u8>> = arguments
        .iter()
        .flat_map(|arguments| arguments.iter())
        .map(<[u8]>::to_vec)
        .collect();
    let slices: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    if words.is_empty() {
        assert_eq!(command, b"");
    } else {
        assert_eq!(command, multibulk(&slices));
    }
    Ok(words)
}

#[test]
fn words_are_split_as_redis_splits_them() {
    let rows: &[(&[u8], &[&[u8]])] = &[
        (b"", &[]),
        (b"\r\n", &[]),
        (b" \t\x0b\x0c\r\n", &[]),
        (b"PING", &[b"PING"]),
        (b"  GET\tkey \r\n", &[b"GET", b"key"]),
        (b"a\x0bb \x0cc", &[b"a\x0bb", b"c"]),
        (b"a\rb", &[b"a", b"b"]),
        (b"SET k \"\"", &[b"SET", b"k", b""]),
        (b"''", &[b""]),
        (b"\"a b\" 'c d'", &[b"a b", b"c d"]),
        (b"k\"a b\"", &[b"ka b"]),
        (br#""\n\r\t\b\a\\\"\q\x""#, &[b"\n\r\t\x08\x07\\\"qx"]),
        (br#""\x41\xfF\x0g""#, &[b"A\xffx0g"]),
        (br"'\n\'\x41'", &[br"\n'\x41"]),
        (br"a\n", &[br"a\n"]),
        (b"\xff\xfe", &[b"\xff\xfe"]),
    ];
    for (line, expected) in rows {
        let found = words(line).unwrap();
        assert_eq!(found, *expected, "{}", text(line));
    }
}

#[test]
fn unbalanced_quotes_are_refused() {
    for line in [
        &b"\""[..],
        b"'",
        b"GET \"a",
        b"\"a\"b",
        b"'a'b",
        b"\"a\"\"b\"",
        b"\"a\\\"",
        b"'a\\'",
    ] {
        let expected = Err(RequestViolation::UnbalancedQuotes);
        assert_eq!(words(line), expected, "{}", text(line));
    }
}

#[test]
fn a_nul_is_refused() {
    for line in [&b"\0"[..], b"GET a\0b", b"GET \"a\0\""] {
        assert_eq!(
            words(line),
            Err(RequestViolation::NulInLine),
            "{}",
            text(line)
        );
    }
}
