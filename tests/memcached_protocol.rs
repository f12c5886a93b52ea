//! The table of memcached's commands, held against a real memcached.
//!
//! Each request goes to it twice: as its client wrote it, and in the form in which it would go over a
//! shared connection. A question that nothing else asks follows both times, and its reply ends what
//! came. Of the second form exactly one reply must have come, of the shape that was foretold; and what
//! is shown of it must be what came of the first.
//!
//! Not here: millpond as a process, and any pooling.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use millpond::protocol::memcached::{
    Limits, Local, ReplyFramer, RequestFramer, Scan, Treatment, treatment, write_disarmed,
};
use millpond::protocol::replies::{Replies, ReplyThen};
use support::memcached::Memcached;
use support::socket::{End, Socket};

/// What ends every exchange, and how it is answered.
const MARK: (&[u8], &[u8]) = (b"mg the-end k\r\n", b"EN kthe-end\r\n");

/// Requests that are shared. `KEY` holds the number 41, `LONG` holds "text", and `NONE` nothing.
const SHARED: &[&str] = &[
    // Retrieval.
    "get KEY\r\n",
    "get NONE\r\n",
    "get KEY NONE LONG KEY\r\n",
    "  get   KEY  \r\n",
    "get KEY\n",
    "get noreply\r\n",
    "gets KEY\r\n",
    "gets NONE LONG\r\n",
    "gat 0 KEY\r\n",
    "gat 0 NONE\r\n",
    "gat x KEY\r\n",
    "gat KEY NONE\r\n",
    "gats 100 KEY LONG\r\n",
    // Storage.
    "set KEY 0 0 2\r\nhi\r\n",
    "set KEY 4294967295 -1 0\r\n\r\n",
    "set KEY 0 0 2 noreply\r\nhi\r\n",
    "set KEY 0 0 2  noreply \r\nhi\r\n",
    "add KEY 0 0 2\r\nhi\r\n",
    "add KEY 0 0 2 noreply\r\nhi\r\n",
    "add NONE 0 0 2\r\nhi\r\n",
    "replace NONE 0 0 2\r\nhi\r\n",
    "replace NONE 0 0 2 noreply\r\nhi\r\n",
    "replace KEY 0 0 2 noreply\r\nhi\r\n",
    "append KEY 0 0 1\r\n1\r\n",
    "append NONE 0 0 1\r\n1\r\n",
    "prepend KEY 0 0 1\r\n1\r\n",
    "prepend NONE 0 0 1 noreply\r\n1\r\n",
    "cas KEY 0 0 2 1\r\nhi\r\n",
    "cas KEY 0 0 2 18446744073709551615 noreply\r\nhi\r\n",
    "cas NONE 0 0 2 5\r\nhi\r\n",
    "set KEY 0 0 12\r\nget x\r\nEND\r\n\r\n",
    "set noreply 0 0 2\r\nhi\r\n",
    // Changes.
    "delete KEY\r\n",
    "delete NONE\r\n",
    "delete KEY 0\r\n",
    "delete KEY 1\r\n",
    "delete KEY noreply\r\n",
    "delete NONE noreply\r\n",
    "delete KEY 0 noreply\r\n",
    "delete KEY 1 noreply\r\n",
    "delete noreply\r\n",
    "delete noreply noreply\r\n",
    "incr KEY 1\r\n",
    "incr KEY 1 noreply\r\n",
    "incr NONE 1\r\n",
    "incr NONE 1 noreply\r\n",
    "incr LONG 1\r\n",
    "incr LONG 1 noreply\r\n",
    "incr KEY x\r\n",
    "incr KEY noreply\r\n",
    "incr KEY 1 NOREPLY\r\n",
    "decr KEY 100\r\n",
    "decr KEY 1 noreply\r\n",
    "touch KEY 0\r\n",
    "touch NONE 0\r\n",
    "touch KEY 0 noreply\r\n",
    "touch NONE 0 noreply\r\n",
    "touch KEY noreply\r\n",
    "touch KEY x\r\n",
    // Meta.
    "mg KEY\r\n",
    "mg NONE\r\n",
    "mg KEY v\r\n",
    "mg KEY s v k f c t O77\r\n",
    "mg NONE k O77\r\n",
    "mg KEY q\r\n",
    "mg KEY q v\r\n",
    "mg NONE q v\r\n",
    "mg NONE v qqq k O77\r\n",
    "mg KEY v q u\n",
    "mg NONE N30 v q\r\n",
    "mg KEY v v\r\n",
    "mg KEY v v q\r\n",
    "mg KEY q ?\r\n",
    "mg S0VZ b k v\r\n",
    "mg ??? b k v q\r\n",
    "mg KEY v O123456789012345678901234567890123 \r\n",
    "mg q q\r\n",
    "ms KEY 2\r\nhi\r\n",
    "ms KEY 0\r\n\r\n",
    "ms KEY 2 q\r\nhi\r\n",
    "ms KEY 2 T0 k O77 q\r\nhi\r\n",
    "ms KEY 2 ME\r\nhi\r\n",
    "ms KEY 2 ME q\r\nhi\r\n",
    "ms NONE 2 MR q k\r\nhi\r\n",
    "ms NONE 2 ME q k\r\nhi\r\n",
    "ms KEY 2 C1 q\r\nhi\r\n",
    "ms NONE 2 C1 q\r\nhi\r\n",
    "ms KEY 2 MX q\r\nhi\r\n",
    "ms KEY 2 Tx q\r\nhi\r\n",
    "ms KEY 2 F1 F1 q\r\nhi\r\n",
    "ms KEY 2 ? q\r\nhi\r\n",
    "ms S0VZ 2 b q\r\nhi\r\n",
    "ms ??? 2 b q\r\nhi\r\n",
    "ms KEY 2 O123456789012345678901234567890123 q\r\nhi\r\n",
    "md KEY\r\n",
    "md KEY q\r\n",
    "md NONE q k\r\n",
    "md KEY C1 q\r\n",
    "md KEY I T30 q\r\n",
    "md KEY ? q\r\n",
    "ma KEY\r\n",
    "ma KEY v\r\n",
    "ma KEY q\r\n",
    "ma KEY q v\r\n",
    "ma NONE q\r\n",
    "ma LONG q\r\n",
    "ma KEY MD D3 v\r\n",
    "ma KEY MX q\r\n",
    "ma NONE N0 J5 v\r\n",
    "me KEY\r\n",
    "me NONE\r\n",
    "me NONE q\r\n",
    "me\r\n",
    // The operator's.
    "version\r\n",
    "version now\r\n",
    "verbosity 0\r\n",
    "verbosity 0 noreply\r\n",
    "verbosity noreply\r\n",
    "verbosity x\r\n",
    "flush_all 1000\r\n",
    "flush_all 1000 noreply\r\n",
    "flush_all x\r\n",
    "flush_all x noreply\r\n",
    "cache_memlimit 64\r\n",
    "cache_memlimit 64 noreply\r\n",
    "cache_memlimit 1\r\n",
    "slabs\r\n",
    "slabs reassign 1 2\r\n",
    "slabs reassign 1 noreply\r\n",
    "slabs automove 0\r\n",
    "slabs automove 0 noreply\r\n",
    "slabs automove noreply\r\n",
    "slabs automove 9 noreply\r\n",
    "lru mode segmented\r\n",
    "lru mode segmented noreply\r\n",
    "lru tune 10 25 0.1 2.0\r\n",
    "lru noreply\r\n",
    "lru_crawler\r\n",
    "lru_crawler enable\r\n",
    "lru_crawler sleep 100\r\n",
    "lru_crawler tocrawl 0\r\n",
    "lru_crawler crawl 1\r\n",
    "lru_crawler crawl 999\r\n",
    "extstore item_age 5\r\n",
    "extstore item_age 5 noreply\r\n",
    "extstore nothing 5 noreply\r\n",
    "refresh_certs\r\n",
    "stats\r\n",
    "stats settings\r\n",
    "stats items\r\n",
    "stats slabs\r\n",
    "stats sizes\r\n",
    "stats conns\r\n",
    "stats nothing\r\n",
    "stats noreply\r\n",
    "stats detail\r\n",
    "stats detail on\r\n",
    "stats detail dump\r\n",
    "stats detail off\r\n",
    "stats cachedump 1 10\r\n",
    "stats cachedump\r\n",
    "stats cachedump 999 1\r\n",
    "stats reset\r\n",
];

/// Requests that never reach the service, and are answered in its words.
const REFUSED: &[&str] = &[
    "\r\n",
    "\n",
    " \r\n",
    "x\r\n",
    "nonsense\r\n",
    "GET KEY\r\n",
    "get\r\n",
    "gat 0\r\n",
    "mg\r\n",
    "ms\r\n",
    "ms KEY\r\n",
    "ms KEY S2\r\n",
    "mx KEY\r\n",
    "mg KEY q q\r\n",
    "ms KEY 2 q q\r\nhi\r\n",
    "md\r\n",
    "ma\r\n",
    "mn\r\n",
    "set KEY 0 0\r\n",
    "set KEY 0 0 x\r\n",
    "set KEY 0 0 -1\r\n",
    "set KEY 0 0 x noreply\r\n",
    "set KEY 0 0 noreply\r\n",
    "set KEY 0 0 2 noreply x\r\n",
    "cas KEY 0 0 2\r\n",
    "touch noreply\r\n",
    "touch KEY\r\n",
    "incr KEY\r\n",
    "incr KEY 1 noreply x\r\n",
    "incr KEY noreply noreply\r\n",
    "delete\r\n",
    "delete KEY 0 noreply x\r\n",
    "delete KEY noreply noreply\r\n",
    "flush_all 1 noreply x\r\n",
    "flush_all noreply noreply\r\n",
    "verbosity\r\n",
    "verbosity noreply noreply\r\n",
    "cache_memlimit\r\n",
    "cache_memlimit noreply noreply\r\n",
    "lru\r\n",
    "lru noreply noreply\r\n",
    "slabs automove noreply noreply\r\n",
    "extstore noreply noreply\r\n",
    "shutdown\r\n",
    "watch\r\n",
    "watch fetchers\r\n",
    "watch fetchers noreply\r\n",
    "lru_crawler metadump all\r\n",
    // Data that ends wrongly: as many bytes are gone as the line says.
    "set KEY 0 0 2\r\nhi!!",
    "set KEY 0 0 2 noreply\r\nhi!!",
    "ms KEY 2 q\r\nhi!!",
];

/// Requests whose client is not answered, but closed on.
const CLOSED: &[&str] = &["quit\r\n", "quit now\r\n", "GET / HTTP/1.1\r\n"];

/// One memcached that forbids what is refused here, since it says so in its words.
fn forbidding() -> Memcached {
    Memcached::start(&["-X", "-W"])
}

/// A client of the memcached itself.
struct Client(Socket);

impl Client {
    fn of(memcached: &Memcached) -> Self {
        Self(Socket::dial(memcached.address()))
    }

    /// Sends this and the mark: what comes before the reply to that.
    fn exchange(&mut self, request: &[u8]) -> Vec<u8> {
        self.0.send(&[request, MARK.0].concat()).unwrap();
        self.until_mark()
    }

    fn until_mark(&mut self) -> Vec<u8> {
        let mut came = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while !came.ends_with(MARK.1) {
            let count = self.0.receive(&mut buffer);
            let count = count.unwrap_or_else(|end| panic!("{end:?} after {}", text(&came)));
            came.extend_from_slice(&buffer[..count]);
        }
        came.truncate(came.len() - MARK.1.len());
        came
    }

    /// Every request finds the same.
    fn prepare(&mut self) {
        let keys =
            b"verbosity 0\r\nset KEY 0 0 2\r\n41\r\nset LONG 7 0 4\r\ntext\r\ndelete NONE\r\ndelete noreply\r\n";
        let came = self.exchange(keys);
        let stored = text(&came).matches("STORED").count();
        assert_eq!(stored, 2, "{}", text(&came));
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// What two runs have in common: numbers change from one to the next, and lists of statistics and
/// items with what was counted or moved meanwhile.
fn outline(bytes: &[u8]) -> String {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let kept = lines.filter(|line| !line.starts_with(b"STAT ") && !line.starts_with(b"ITEM "));
    // The crawler may be at work on the order of the request before, or of nobody.
    let text = text(&kept.collect::<Vec<_>>().concat())
        .replace("BUSY currently processing crawler request", "OK");
    let parts = text.split(|c: char| c.is_ascii_digit());
    let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    parts.join("#")
}

/// The request must be one of those that are found whole.
fn must_be_whole(request: &[u8]) {
    let scan = RequestFramer::new(Limits::default()).scan(request);
    let bytes = request.len();
    assert_eq!(scan, Ok(Scan::Whole { bytes }), "{}", text(request));
}

#[test]
fn each_shared_request_has_one_reply_of_its_kind_and_shows_what_it_would_have_had() {
    let memcached = Memcached::start(&[]);
    let mut client = Client::of(&memcached);
    let mut hidden = 0;
    for request in SHARED.iter().map(|request| request.as_bytes()) {
        must_be_whole(request);
        let Treatment::Share(shared) = treatment(request) else {
            panic!("{} is not shared", text(request));
        };
        client.prepare();
        let original = client.exchange(request);
        client.prepare();
        let mut disarmed = Vec::new();
        write_disarmed(request, &mut disarmed);
        assert_eq!(shared.armed, disarmed != request, "{}", text(request));
        let reply = client.exchange(&disarmed);

        let mut framer = ReplyFramer::new();
        let frame = framer.frame(shared.kind, &reply);
        let frame = frame.unwrap_or_else(|violation| {
            panic!("{}: {violation} in {}", text(request), text(&reply))
        });
        assert_eq!(
            frame.then,
            ReplyThen::End,
            "{}: {}",
            text(request),
            text(&reply)
        );
        assert_eq!(
            frame.taken,
            reply.len(),
            "{}: {}",
            text(request),
            text(&reply)
        );
        let seen = if frame.shown { &reply[..] } else { b"" };
        assert_eq!(
            outline(seen),
            outline(&original),
            "{}: {}",
            text(request),
            text(&reply)
        );
        hidden += usize::from(!frame.shown);
    }
    assert!(hidden >= 30, "silence is asked for: {hidden}");
}

#[test]
fn all_of_them_one_behind_the_other_have_their_replies_in_order() {
    let memcached = Memcached::start(&[]);
    let mut client = Client::of(&memcached);
    client.prepare();
    let mut sent = Vec::new();
    let mut kinds = Vec::new();
    for _ in 0..3 {
        for request in SHARED.iter().map(|request| request.as_bytes()) {
            let Treatment::Share(shared) = treatment(request) else {
                panic!("{} is not shared", text(request));
            };
            write_disarmed(request, &mut sent);
            kinds.push((shared.kind, request));
        }
    }
    let came = client.exchange(&sent);
    for step in [1, 7, 4096, came.len()] {
        let mut framer = ReplyFramer::new();
        let (mut begin, mut end) = (0, 0);
        for (kind, request) in &kinds {
            loop {
                let frame = framer.frame(*kind, &came[begin..end]);
                let frame =
                    frame.unwrap_or_else(|violation| panic!("{}: {violation}", text(request)));
                begin += frame.taken;
                if frame.then == ReplyThen::End {
                    break;
                }
                assert!(end < came.len(), "{} has no reply", text(request));
                end = came.len().min(end + step);
            }
        }
        assert_eq!(begin, came.len(), "no reply is left over");
    }
}

#[test]
fn what_is_refused_is_refused_in_the_words_of_a_memcached() {
    let memcached = forbidding();
    for request in REFUSED.iter().map(|request| request.as_bytes()) {
        let mut client = Client::of(&memcached);
        client.prepare();
        let original = client.exchange(request);
        let reply = match RequestFramer::new(Limits::default()).scan(request) {
            Ok(Scan::Whole { bytes }) if bytes == request.len() => match treatment(request) {
                Treatment::Refuse(refusal) => refusal.reply.to_vec(),
                Treatment::Answer(Local::Say(reply)) => reply.to_vec(),
                other => panic!("{} is {other:?}", text(request)),
            },
            Ok(Scan::Faulty {
                violation, shown, ..
            }) => {
                let mut reply = Vec::new();
                if shown {
                    violation.write_reply(&mut reply);
                }
                reply
            }
            other => panic!("{} is {other:?}", text(request)),
        };
        // The one with no keys is no worse answered than with an empty list.
        let original = match &original[..] {
            b"END\r\n" if request == b"gat 0\r\n" => b"ERROR\r\n".to_vec(),
            _ => original,
        };
        assert_eq!(text(&reply), text(&original), "{}", text(request));
    }
}

#[test]
fn what_closes_closes() {
    let memcached = Memcached::start(&[]);
    for request in CLOSED.iter().map(|request| request.as_bytes()) {
        must_be_whole(request);
        assert_eq!(treatment(request), Treatment::Answer(Local::Close));
        let mut client = Client::of(&memcached);
        client.0.send(request).unwrap();
        let end = client.0.receive(&mut [0; 64]);
        assert_eq!(end, Err(End::Fin), "{}", text(request));
    }
}

#[test]
fn an_item_that_is_too_large_is_refused_and_its_data_is_gone() {
    let memcached = Memcached::start(&["-I", "16k", "-o", "slab_chunk_max=8"]);
    for (line, is_shown) in [
        ("set KEY 0 0 100000\r\n", true),
        ("set KEY 0 0 100000 noreply\r\n", false),
        ("ms KEY 100000\r\n", true),
        ("ms KEY 100000 q\r\n", true),
    ] {
        let request = [line.as_bytes(), &[b'x'; 100_000], b"\r\n"].concat();
        must_be_whole(&request);
        // memcached's own limit is the lower one: it is found out there.
        let Treatment::Share(shared) = treatment(&request) else {
            panic!("{line} is not shared");
        };
        let mut disarmed = Vec::new();
        write_disarmed(&request, &mut disarmed);
        let mut client = Client::of(&memcached);
        // It may be answered before all of it is there, but not be known by less.
        let (first, rest) = disarmed.split_at(disarmed.len() / 2);
        client.0.send(first).unwrap();
        let reply = b"SERVER_ERROR object too large for cache\r\n";
        assert_eq!(text(&client.exchange(rest)), text(reply), "{line}");
        let frame = ReplyFramer::new().frame(shared.kind, reply).unwrap();
        let end = (frame.taken, frame.then, frame.shown);
        assert_eq!(end, (reply.len(), ReplyThen::End, is_shown), "{line}");
        let original = Client::of(&memcached).exchange(&request);
        assert_eq!(!original.is_empty(), is_shown, "{line}");

        // Over the proxy's own limit it is refused in the same words, by its line alone.
        let limits = Limits {
            item_bytes_max: 16 << 10,
            ..Limits::default()
        };
        let scan = RequestFramer::new(limits).scan(line.as_bytes());
        let Ok(Scan::Faulty {
            bytes,
            violation,
            shown,
        }) = scan
        else {
            panic!("{line} is {scan:?}");
        };
        let mut refusal = Vec::new();
        violation.write_reply(&mut refusal);
        assert_eq!(
            (bytes, shown, text(&refusal)),
            (line.len(), is_shown, text(reply))
        );
    }
}

#[test]
fn a_request_that_is_completed_with_other_bytes_stores_nothing() {
    let memcached = Memcached::start(&[]);
    let mut client = Client::of(&memcached);
    client.prepare();
    let begun = b"set KEY 0 0 5\r\nhe";
    let mut framer = RequestFramer::new(Limits::default());
    assert_eq!(framer.scan(begun), Ok(Scan::More));
    framer.consumed(framer.scanned());
    let owed = framer.owed().unwrap() as usize;
    let came = client.exchange(&[&begun[..], &vec![0; owed]].concat());
    assert_eq!(text(&came), "CLIENT_ERROR bad data chunk\\r\\n");
    assert_eq!(
        text(&client.exchange(b"get KEY\r\n")),
        "VALUE KEY 0 2\\r\\n41\\r\\nEND\\r\\n"
    );
}

#[test]
fn lines_may_be_as_long_as_a_memcached_waits_for_their_end() {
    let memcached = Memcached::start(&[]);
    let line = |verb: &str, length: usize| {
        let mut line = format!("{verb} ").into_bytes();
        while line.len() < length - 2 {
            line.push(if line.len() % 100 == 0 { b' ' } else { b'k' });
        }
        [&line[..], b"\r\n"].concat()
    };
    for (verb, length) in [
        ("touch", 2048),
        ("gat 0", 2048),
        ("get", 65536),
        ("gets", 65536),
    ] {
        let request = line(verb, length);
        must_be_whole(&request);
        let mut client = Client::of(&memcached);
        // All but its end: that is what it must be patient with.
        let (most, end) = request.split_at(length - 1);
        client.0.send(most).unwrap();
        assert!(
            client.0.stays_silent(std::time::Duration::from_millis(50)),
            "{verb}"
        );
        let reply = client.exchange(end);
        assert!(
            [&b"END\r\n"[..], b"ERROR\r\n"].contains(&&reply[..]),
            "{verb}: {}",
            text(&reply)
        );
    }
    let mut client = Client::of(&memcached);
    client.0.send(&line("touch", 4096)[..2049]).unwrap();
    assert!(client.0.receive(&mut [0; 64]).is_err(), "it closes");
}
