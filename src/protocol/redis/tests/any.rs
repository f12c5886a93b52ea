//! Any bytes as requests and as replies: what the framers make of them, however they are cut, is what
//! a plain reading of RESP says. Run by the tests over seeds and by the fuzz target.

use super::{
    Arguments, Limits, Replies, ReplyFramer, ReplyThen, RequestFramer, RequestViolation, Scan,
    Shape, Treatment, canonical, is_inline, treatment,
};

/// What a client's bytes were found to be, with the place where each ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Blank(usize),
    Whole(usize),
    Violation(RequestViolation),
}

/// Shows `sent` to a framer up to each of `cuts` in turn, then all of it. Where `passes_on`, what is
/// known to be sound goes on before the end of its command.
pub(crate) fn requests(limits: Limits, sent: &[u8], cuts: &[usize], passes_on: bool) -> Vec<Found> {
    let mut framer = RequestFramer::new(limits);
    let mut found = Vec::new();
    let mut at = 0;
    for shown in cuts.iter().copied().chain([sent.len()]) {
        loop {
            let bytes = &sent[at..shown];
            match framer.scan(bytes) {
                Ok(Scan::More) => {
                    let scanned = framer.scanned();
                    assert!(scanned <= bytes.len(), "no more than is there");
                    if passes_on {
                        framer.consumed(scanned);
                        at += scanned;
                        assert_eq!(framer.scanned(), 0);
                    }
                    break;
                }
                Ok(Scan::Blank { bytes: count }) => {
                    at += count;
                    found.push(Found::Blank(at));
                }
                Ok(Scan::Whole { bytes: count }) => {
                    at += count;
                    found.push(Found::Whole(at));
                }
                Err(violation) => {
                    found.push(Found::Violation(violation));
                    return found;
                }
            }
            assert!(at <= shown, "no more than is there");
        }
    }
    found
}

/// Where the replies in `sent` end, and whether the rest breaks the protocol.
pub(crate) fn replies(sent: &[u8], cuts: &[usize], pushes: bool) -> (Vec<usize>, usize, bool) {
    let mut framer = ReplyFramer::new();
    let mut ends = Vec::new();
    let mut at = 0;
    for shown in cuts.iter().copied().chain([sent.len()]) {
        loop {
            let bytes = &sent[at..shown];
            let framed = if pushes {
                framer
                    .frame_any(bytes)
                    .map(|frame| (frame.taken, frame.then))
            } else {
                let frame = framer.frame(Shape::Shown, bytes);
                frame.map(|frame| (frame.taken, frame.then))
            };
            let Ok((taken, then)) = framed else {
                return (ends, at, true);
            };
            assert!(taken <= bytes.len(), "no more than is there");
            at += taken;
            match then {
                ReplyThen::End => {
                    assert!(taken > 0, "a reply has bytes");
                    assert!(framer.is_between_replies());
                    ends.push(at);
                }
                ReplyThen::More if taken == 0 => {
                    assert!(bytes.len() < 64, "it can say what becomes of so many");
                    break;
                }
                ReplyThen::More => {}
            }
        }
    }
    (ends, at, false)
}

/// Panics where the framers of requests are wrong: what they found.
pub(crate) fn check_requests(limits: Limits, sent: &[u8], cuts: &[usize]) -> Vec<Found> {
    let whole = requests(limits, sent, &[], false);
    let every: Vec<usize> = (0..sent.len()).collect();
    for cuts in [cuts, &every] {
        for passes_on in [false, true] {
            let found = requests(limits, sent, cuts, passes_on);
            assert_eq!(found, whole, "cut at {cuts:?}: {}", sent.escape_ascii());
        }
    }
    assert_eq!(
        whole,
        read_requests(limits, sent),
        "{}",
        sent.escape_ascii()
    );
    let mut from = 0;
    for found in &whole {
        match *found {
            Found::Whole(end) => check_command(limits, &sent[from..end]),
            Found::Blank(_) | Found::Violation(_) => {}
        }
        if let Found::Whole(end) | Found::Blank(end) = *found {
            from = end;
        }
    }
    whole
}

/// A whole command has all its arguments, and is the same command for the next reader.
fn check_command(limits: Limits, command: &[u8]) {
    let mut bytes = command.to_vec();
    if is_inline(command) {
        bytes.clear();
        canonical(command, &mut bytes).expect("it was found sound");
    }
    let arguments = Arguments::new(&bytes).expect("it is a command");
    assert!(arguments.is_whole(), "{}", bytes.escape_ascii());
    let again: Vec<u8> = arguments.iter().fold(
        format!("*{}\r\n", arguments.count()).into_bytes(),
        |mut again, argument| {
            again.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            again.extend_from_slice(argument);
            again.extend_from_slice(b"\r\n");
            again
        },
    );
    assert_eq!(bytes, again);
    let unbounded = Limits {
        arguments_max: usize::MAX,
        bulk_bytes_max: u64::MAX,
        ..limits
    };
    let found = requests(unbounded, &bytes, &[], false);
    assert_eq!(found, [Found::Whole(bytes.len())]);
    let treated = treatment(&arguments);
    for end in 0..bytes.len() {
        let Some(arguments) = Arguments::new(&bytes[..end]) else {
            continue;
        };
        let before = treatment(&arguments);
        let is_safe = before == treated || matches!(before, Treatment::Lease(_));
        assert!(is_safe, "{}: {before:?}", bytes[..end].escape_ascii());
    }
}

/// Panics where the framers of replies are wrong: where replies ended, and whether the rest is wrong.
pub(crate) fn check_replies(sent: &[u8], cuts: &[usize]) -> (Vec<usize>, bool) {
    for pushes in [false, true] {
        let whole = replies(sent, &[], pushes);
        let every: Vec<usize> = (0..sent.len()).collect();
        for cuts in [cuts, &every] {
            let cut = replies(sent, cuts, pushes);
            assert_eq!(cut, whole, "cut at {cuts:?}: {}", sent.escape_ascii());
        }
        let plain = read_replies(sent, pushes);
        let found = (whole.0, whole.2);
        assert_eq!(found, plain, "{}", sent.escape_ascii());
        if pushes {
            return found;
        }
    }
    unreachable!("the last turn returns");
}

/// What is read, and what follows it. `Err(None)`: it ends first; else it is wrong.
type Read<'a, T> = Result<(T, &'a [u8]), Option<RequestViolation>>;

fn read_requests(limits: Limits, sent: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut rest = sent;
    while !rest.is_empty() {
        let read = if rest[0] == b'*' {
            read_multibulk(limits, rest)
        } else {
            read_inline(limits, rest)
        };
        match read {
            Ok((is_command, after)) => {
                let end = sent.len() - after.len();
                found.push(if is_command {
                    Found::Whole(end)
                } else {
                    Found::Blank(end)
                });
                rest = after;
            }
            Err(None) => break,
            Err(Some(violation)) => {
                found.push(Found::Violation(violation));
                break;
            }
        }
    }
    found
}

fn read_multibulk(limits: Limits, bytes: &[u8]) -> Read<'_, bool> {
    let (count, mut rest) = read_number(&bytes[1..], RequestViolation::BadCount)?;
    if count > limits.arguments_max as i64 {
        return Err(Some(RequestViolation::TooManyArguments));
    }
    for number in 0..count {
        let (kind, after) = rest.split_first().ok_or(None)?;
        if *kind != b'$' {
            return Err(Some(RequestViolation::NotABulk(*kind)));
        }
        let (length, after) = read_number(after, RequestViolation::BadLength)?;
        if length < 0 {
            return Err(Some(RequestViolation::BadLength));
        }
        if length as u64 > limits.bulk_bytes_max {
            return Err(Some(RequestViolation::BulkTooLong));
        }
        let (argument, after) = after.split_at_checked(length as usize).ok_or(None)?;
        rest = read_end(after)?;
        if number == 0 {
            read_name(argument)?;
        }
    }
    Ok((count > 0, rest))
}

fn read_name(name: &[u8]) -> Result<(), Option<RequestViolation>> {
    match name.to_ascii_lowercase().as_slice() {
        b"post" | b"host:" => Err(Some(RequestViolation::Http)),
        _ => Ok(()),
    }
}

fn read_end(bytes: &[u8]) -> Result<&[u8], Option<RequestViolation>> {
    match bytes {
        [] | [b'\r'] => Err(None),
        [b'\r', b'\n', rest @ ..] => Ok(rest),
        _ => Err(Some(RequestViolation::BadTerminator)),
    }
}

/// A number as Rust writes it is one as Redis writes it.
fn read_number(bytes: &[u8], wrong: RequestViolation) -> Read<'_, i64> {
    let is_digit = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
    let end = bytes.iter().position(|byte| !is_digit(byte));
    let (digits, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
    let digits = std::str::from_utf8(digits).expect("digits");
    let number: Option<i64> = digits.parse().ok();
    let number = number.filter(|number| number.to_string() == digits);
    match (number, rest) {
        (Some(number), [b'\r', ..]) => Ok((number, read_end(rest)?)),
        // A number, or a minus, may go on.
        (Some(_), []) => Err(None),
        (None, []) if digits.is_empty() || digits == "-" => Err(None),
        _ => Err(Some(wrong)),
    }
}

fn read_inline(limits: Limits, bytes: &[u8]) -> Read<'_, bool> {
    let first = bytes.iter().position(|byte| b"\n\0".contains(byte));
    if first.is_some_and(|at| bytes[at] == 0 && at <= limits.inline_bytes_max) {
        return Err(Some(RequestViolation::NulInLine));
    }
    let Some(end) = first else {
        return Err(
            (bytes.len() > limits.inline_bytes_max).then_some(RequestViolation::InlineTooLong)
        );
    };
    if end > limits.inline_bytes_max {
        return Err(Some(RequestViolation::InlineTooLong));
    }
    let (line, rest) = bytes.split_at(end + 1);
    let mut command = Vec::new();
    canonical(line, &mut command)?;
    match Arguments::new(&command) {
        None => Ok((false, rest)),
        Some(arguments) => {
            read_name(arguments.name())?;
            Ok((true, rest))
        }
    }
}

fn read_replies(sent: &[u8], pushes: bool) -> (Vec<usize>, bool) {
    let mut ends = Vec::new();
    let mut rest = sent;
    loop {
        match read_value(rest, pushes) {
            Ok(after) => {
                rest = after;
                ends.push(sent.len() - rest.len());
            }
            Err(is_wrong) => return (ends, is_wrong),
        }
    }
}

/// What follows a value, or whether it is wrong rather than cut short.
fn read_value(bytes: &[u8], push: bool) -> Result<&[u8], bool> {
    let (kind, rest) = bytes.split_first().ok_or(false)?;
    let number = || {
        let number = read_number(rest, RequestViolation::BadCount);
        number.map_err(|wrong| wrong.is_some())
    };
    match kind {
        b'+' | b'-' | b'(' => Ok(&rest[find_end(rest).ok_or(false)? + 2..]),
        b':' => Ok(number()?.1),
        b'_' | b'#' | b',' => {
            let near = &rest[..rest.len().min(63)];
            let end = find_end(near).ok_or(rest.len() >= 63)?;
            let is_sound = match kind {
                b'_' => end == 0,
                b'#' => end == 1 && b"tf".contains(&rest[0]),
                _ => end > 0,
            };
            if is_sound {
                Ok(&rest[end + 2..])
            } else {
                Err(true)
            }
        }
        b'$' | b'!' | b'=' => match number()? {
            (-1, rest) if *kind == b'$' => Ok(rest),
            (..0, _) => Err(true),
            (length, rest) => {
                let rest = rest.get(length as usize..).ok_or(false)?;
                read_end(rest).map_err(|wrong| wrong.is_some())
            }
        },
        b'*' | b'~' | b'%' | b'|' | b'>' => {
            if *kind == b'>' && !push {
                return Err(true);
            }
            let (count, mut rest) = match number()? {
                (-1, rest) if *kind == b'*' => return Ok(rest),
                (count, _) if u32::try_from(count).is_err() => return Err(true),
                found => found,
            };
            let each = if b"%|".contains(kind) { 2 } else { 1 };
            for _ in 0..each {
                for _ in 0..count {
                    rest = read_value(rest, false)?;
                }
            }
            if *kind == b'|' {
                read_value(rest, false)
            } else {
                Ok(rest)
            }
        }
        _ => Err(true),
    }
}

fn find_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == b"\r\n")
}
