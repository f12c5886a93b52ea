//! The short answers, read back by the response framer.

use std::time::Duration;

use super::drive::{End, drive};
use super::*;

fn written(refusal: &Refusal<'_>) -> String {
    let mut answer = Vec::new();
    refusal.write(&mut answer);
    String::from_utf8(answer).unwrap()
}

const BUSY: Refusal<'_> = Refusal {
    status: 503,
    why: "No connection became free.",
    persistence: Persistence::Close,
    retry_after: Some(Duration::from_millis(1001)),
    head: false,
};

#[test]
fn a_refusal_says_why_and_when_to_come_back() {
    assert_eq!(
        written(&BUSY),
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: 27\r\nRetry-After: 2\r\nConnection: close\r\n\r\n\
         No connection became free.\n"
    );
    let kept = Refusal {
        persistence: Persistence::KeepAlive,
        retry_after: None,
        ..BUSY
    };
    assert!(written(&kept).contains("Content-Length: 27\r\n\r\nNo"));
    let said = Refusal {
        persistence: Persistence::KeepAliveSaid,
        head: true,
        ..BUSY
    };
    assert!(written(&said).ends_with("Connection: keep-alive\r\n\r\n"));
}

#[test]
fn every_refusal_is_a_sound_response() {
    for status in [400, 408, 413, 417, 431, 501, 502, 503, 504, 505] {
        for head in [false, true] {
            let answer = written(&Refusal {
                status,
                head,
                ..BUSY
            });
            let request = RequestFacts { head, ..GET };
            let mut framer = ResponseFramer::new(request, &options());
            let run = drive(&mut framer, answer.as_bytes(), []);
            assert_eq!(
                (run.end, run.taken),
                (End::Boundary, answer.len()),
                "{status}"
            );
            let line = answer.lines().next().unwrap();
            assert!(line.len() > "HTTP/1.1 503 ".len(), "{line} lacks a phrase");
        }
    }
}
