//! The same bytes cut in any way give the same answer.

use super::drive::{End, drive};
use super::generate::{self, Seeded};
use super::*;
use super::{request_rows, response_rows};
use crate::protocol::{Eof, Reply};

fn check_request(sent: &[u8], cuts: &[usize], options: &Options) {
    let mut whole_framer = RequestFramer::new(options);
    let whole = drive(&mut whole_framer, sent, []);
    let mut cut_framer = RequestFramer::new(options);
    let cut = drive(&mut cut_framer, sent, cuts.iter().copied());
    assert_eq!(cut, whole, "{} cut at {cuts:?}", text(sent));
    assert_eq!(cut_framer.facts(), whole_framer.facts());
    assert_eq!(cut_framer.is_complete(), whole.end == End::Boundary);
}

fn check_response(request: RequestFacts, sent: &[u8], cuts: &[usize]) {
    let mut whole_framer = ResponseFramer::new(request, &options());
    let whole = drive(&mut whole_framer, sent, []);
    let mut cut_framer = ResponseFramer::new(request, &options());
    let cut = drive(&mut cut_framer, sent, cuts.iter().copied());
    assert_eq!(cut, whole, "{} cut at {cuts:?}", text(sent));
    assert_eq!(cut_framer.facts(), whole_framer.facts());
    assert_eq!(cut_framer.client_closes(), whole_framer.client_closes());
    if !matches!(whole.end, End::Violation(_)) {
        assert_eq!(cut_framer.eof(), whole_framer.eof());
    }
}

/// Every request of the tables, sound or not.
fn requests() -> Vec<Vec<u8>> {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let accepted = request_rows::ACCEPTED.iter().map(|row| row.sent.to_vec());
    let refused = request_rows::REFUSED.iter().map(|row| row.1.to_vec());
    let chunks = request_rows::REFUSED_CHUNKS
        .iter()
        .map(|row| [head, row.1].concat());
    accepted.chain(refused).chain(chunks).collect()
}

/// Every response of the tables, sound or not, with the request that it answers.
fn responses() -> Vec<(RequestFacts, Vec<u8>)> {
    let accepted = response_rows::ACCEPTED
        .iter()
        .map(|row| (row.request, row.sent.to_vec()));
    let refused = response_rows::REFUSED
        .iter()
        .map(|row| (GET, row.1.to_vec()));
    accepted.chain(refused).collect()
}

#[test]
fn a_request_cut_at_every_byte() {
    for sent in requests() {
        for at in 0..=sent.len() {
            check_request(&sent, &[at], &options());
        }
        let every: Vec<usize> = (0..=sent.len()).collect();
        check_request(&sent, &every, &forwarding());
    }
}

#[test]
fn a_response_cut_at_every_byte() {
    for (request, sent) in responses() {
        for at in 0..=sent.len() {
            check_response(request, &sent, &[at]);
        }
        let every: Vec<usize> = (0..=sent.len()).collect();
        check_response(request, &sent, &every);
    }
}

#[test]
fn generated_requests_cut_at_random() {
    let mut sound = 0;
    for seed in 0..20_000 {
        let mut seeded = Seeded::new(seed);
        let sent = generate::request(&mut seeded);
        check_request(&sent, &seeded.cuts(sent.len()), &forwarding());
        sound += usize::from(check_second_reading(&sent));
    }
    assert!(
        sound > 2000,
        "only {sound} of the generated requests are sound"
    );
}

/// A second reader of what went on finds the same boundary, and nothing left to change. True for a
/// complete request.
fn check_second_reading(sent: &[u8]) -> bool {
    let options = options();
    let first = drive(&mut RequestFramer::new(&options), sent, []);
    if first.end != End::Boundary {
        return false;
    }
    let passed = first.passed();
    let second = drive(&mut RequestFramer::new(&options), &passed, []);
    assert_eq!(text(&second.passed()), text(&passed));
    assert_eq!((second.end, second.taken), (End::Boundary, passed.len()));
    true
}

#[test]
fn generated_responses_cut_at_random() {
    let mut sound = 0;
    for seed in 0..20_000 {
        let mut seeded = Seeded::new(seed);
        let sent = generate::response(&mut seeded);
        let request = RequestFacts {
            head: seeded.below(8) == 0,
            version_minor: seeded.below(2) as u8,
            keep_alive: seeded.below(2) == 0,
            upgrade: seeded.below(2) == 0,
            ..GET
        };
        let cuts = seeded.cuts(sent.len());
        check_response(request, &sent, &cuts);

        let first = drive(&mut ResponseFramer::new(request, &options()), &sent, []);
        if first.end == End::Boundary {
            sound += 1;
            let mut second = ResponseFramer::new(request, &options());
            let passed = first.passed();
            let again = drive(&mut second, &passed, []);
            assert_eq!(text(&again.passed()), text(&passed));
            assert_eq!(second.eof(), Eof::Complete);
        }
    }
    assert!(
        sound > 2000,
        "only {sound} of the generated responses are sound"
    );
}
