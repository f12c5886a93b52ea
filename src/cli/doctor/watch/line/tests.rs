#![allow(clippy::unwrap_used)]

use super::*;

const AT: LocalTime = LocalTime {
    hour: 12,
    minute: 34,
    second: 56,
    millis: 7,
};

fn event(direction: Direction, local: &str, peer: &str, kernel_reason: KernelReason) -> ResetEvent {
    ResetEvent {
        at: Duration::from_secs(1),
        direction,
        local: local.parse().unwrap(),
        peer: peer.parse().unwrap(),
        cookie: None,
        kernel_reason,
    }
}

fn process(name: Option<&str>) -> Actor {
    Actor::Process(Process {
        id: 77,
        name: name.map(str::to_owned),
    })
}

#[test]
fn a_reset_says_when_where_who_and_why() {
    let table = [
        (
            Direction::Sent,
            "10.0.0.1:80",
            "10.0.0.2:4000",
            process(Some("python3")),
            KernelReason::State,
            "12:34:56.007  sent      10.0.0.1:80 -> 10.0.0.2:4000                    python3[77]                      \
             tcp_state: A program aborted the connection, by a linger time of 0.",
        ),
        (
            Direction::Sent,
            "123.123.123.123:12345",
            "123.123.123.124:12345",
            Actor::Kernel,
            KernelReason::NoSocket,
            "12:34:56.007  sent      123.123.123.123:12345 -> 123.123.123.124:12345  the kernel, answering a segment  \
             no_socket: A segment came for which there was no socket.",
        ),
        (
            Direction::Sent,
            "[::1]:80",
            "[::1]:81",
            Actor::Kernel,
            KernelReason::KeepaliveTimeout,
            "12:34:56.007  sent      [::1]:80 -> [::1]:81                            the kernel, at a timer           \
             tcp_keepalive_timeout: The peer did not answer keepalive probes.",
        ),
        (
            Direction::Received,
            "10.0.0.1:80",
            "10.0.0.2:4000",
            Actor::Unknown,
            KernelReason::Peer,
            "12:34:56.007  received  10.0.0.1:80 <- 10.0.0.2:4000                    -                                \
             peer: The peer's kernel sent it and does not say why.",
        ),
    ];
    for (direction, local, peer, actor, reason, expected) in table {
        let event = event(direction, local, peer, reason);
        assert_eq!(reset(AT, &event, &actor, Colours::Off), expected);
    }
}

#[test]
fn a_programs_name_can_not_command_the_terminal() {
    let event = event(
        Direction::Sent,
        "1.1.1.1:1",
        "2.2.2.2:2",
        KernelReason::State,
    );
    let evil = process(Some("\u{1b}[2J\u{9b}x\ny"));
    let line = reset(AT, &event, &evil, Colours::Off);
    assert!(!line.contains(char::is_control), "{line:?}");
    assert!(line.contains("[2J\u{fffd}x\u{fffd}y[77]"), "{line:?}");
    let nameless = reset(AT, &event, &process(None), Colours::Off);
    assert!(nameless.contains(" process 77 "), "{nameless}");
}

#[test]
fn colours_are_only_around_the_kind() {
    let sent = event(
        Direction::Sent,
        "1.1.1.1:1",
        "2.2.2.2:2",
        KernelReason::State,
    );
    let received = event(
        Direction::Received,
        "1.1.1.1:1",
        "2.2.2.2:2",
        KernelReason::Peer,
    );
    for (event, colour) in [(sent, "\x1b[33m"), (received, "\x1b[36m")] {
        let plain = reset(AT, &event, &Actor::Kernel, Colours::Off);
        let painted = reset(AT, &event, &Actor::Kernel, Colours::On);
        assert!(painted.contains(colour), "{painted:?}");
        assert_eq!(painted.replace(colour, "").replace("\x1b[0m", ""), plain);
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
    }
}

#[test]
fn what_is_not_shown_is_counted_by_kind_the_most_first() {
    let some = Unshown {
        beyond: vec![
            (Direction::Received, KernelReason::Peer, 3),
            (Direction::Sent, KernelReason::NoSocket, 1_200),
        ],
        lost: 40,
        unreadable: 2,
    };
    assert_eq!(
        unshown(AT, &some, Colours::Off),
        "12:34:56.007  unshown   1243 more RSTs: 1200 sent (no_socket), 3 received (peer), \
         40 that the kernel dropped, being read too slowly, 2 lines that can't be read"
    );
}

#[test]
fn numbers_say_what_changed() {
    let sockets = |time_wait, established| {
        let mut sockets = ByState::default();
        for (state, count) in [
            (State::TimeWait, time_wait),
            (State::Established, established),
        ] {
            (0..count).for_each(|_| sockets.add(state));
        }
        sockets
    };
    let (now, before) = (sockets(31, 12), sockets(35, 0));
    assert_eq!(
        numbers(AT, &now, None, Colours::Off),
        "12:34:56.007  now       time_wait 31  established 12"
    );
    let passed = Duration::from_secs(2);
    let told = Resets::Told {
        sent: 3,
        received: 0,
    };
    let table = [
        (told, "  |  RSTs 1.5/s sent, 0.0/s received"),
        (Resets::Counted(9), "  |  RSTs 4.5/s sent"),
        (Resets::Unknown, ""),
    ];
    for (resets, expected) in table {
        let line = numbers(AT, &now, Some((&before, passed, resets)), Colours::Off);
        let start = "12:34:56.007  now       time_wait 31 (-4)  established 12";
        assert_eq!(line, format!("{start}{expected}"));
    }
}
