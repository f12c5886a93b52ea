//! Which ends are reachable, what each one means, and what to do about it.
//!
//! One table for each side. It is what operators read, what is present at 0 in the metrics from the
//! start, and what tells an ordinary end from one that deserves a line in the log. An end that
//! stands in no table is counted and shown all the same; it is a gap in the table.
//!
//! Also here: the compact code of an end, one letter each for who, phase and manner.

use crate::close::{Initiator, Manner, Phase, ResetCause, Side, Termination};

use super::ledger::{Ending, Reset};

/// One reachable end.
#[derive(Debug)]
pub struct Row {
    /// Who, in which phase, in which manner.
    pub termination: Termination,
    /// Whether it is part of an ordinary day: no line among the abnormal ends.
    pub ordinary: bool,
    /// What happened, in one sentence.
    pub meaning: &'static str,
    /// What to do, in one sentence.
    pub advice: &'static str,
}

/// The reachable ends of connections on `side`.
pub fn reachable(side: Side) -> &'static [Row] {
    match side {
        Side::Downstream => DOWNSTREAM,
        Side::Upstream => UPSTREAM,
    }
}

/// The row of `termination`; `None` is a gap in the table.
pub fn find(side: Side, termination: Termination) -> Option<&'static Row> {
    reachable(side)
        .iter()
        .find(|row| row.termination == termination)
}

/// Whether `ending` deserves a line in the log: it is out of the ordinary, or bytes were lost, or
/// there was a RST.
pub fn is_abnormal(side: Side, ending: &Ending) -> bool {
    let lost = ending.account.lost_bytes() > 0;
    let ordinary = find(side, ending.termination).is_some_and(|row| row.ordinary);
    lost || ending.reset.is_some() || !ordinary
}

/// The reachable RSTs of connections on `side`. One may come after the end began: while it closes.
pub fn reachable_resets(side: Side) -> impl Iterator<Item = (Reset, Phase)> {
    let anywhere = [Reset::Received, Reset::Sent(ResetCause::Operator)];
    let in_exchange: &[ResetCause] = match side {
        Side::Downstream => &[ResetCause::Propagated],
        Side::Upstream => &[ResetCause::Propagated, ResetCause::Abandoned],
    };
    let phases = Phase::ALL
        .into_iter()
        .filter(move |&phase| has_phase(side, phase));
    let anywhere = phases
        .chain([Phase::Close])
        .flat_map(move |phase| anywhere.into_iter().map(move |reset| (reset, phase)));
    let exchange = [Phase::Request, Phase::Response].into_iter();
    let in_exchange = exchange.flat_map(move |phase| {
        let causes = in_exchange.iter();
        causes.map(move |&cause| (Reset::Sent(cause), phase))
    });
    let linger_bound = (Reset::Sent(ResetCause::LingerBound), Phase::Close);
    anywhere.chain(in_exchange).chain([linger_bound])
}

/// Whether the end of a connection on `side` can begin in `phase`.
fn has_phase(side: Side, phase: Phase) -> bool {
    let mut rows = reachable(side).iter();
    phase != Phase::Close && rows.any(|row| row.termination.phase == phase)
}

/// The three letters of an end, for log lines: who, phase, manner.
///
/// ```text
/// who     D downstream  U upstream   M millpond  K kernel   O operator
/// phase   A accept      H handshake  Q queue     C connect  R request  P response  I idle  L close
/// manner  F fin         R reset_received  S reset_sent  T truncated  O timeout  X refused  L limit  V violation
/// ```
pub fn code(termination: Termination) -> [u8; 3] {
    let initiator = match termination.initiator {
        Initiator::Downstream => b'D',
        Initiator::Upstream => b'U',
        Initiator::Millpond => b'M',
        Initiator::Kernel => b'K',
        Initiator::Operator => b'O',
    };
    let phase = match termination.phase {
        Phase::Accept => b'A',
        Phase::Handshake => b'H',
        Phase::Queue => b'Q',
        Phase::Connect => b'C',
        Phase::Request => b'R',
        Phase::Response => b'P',
        Phase::Idle => b'I',
        Phase::Close => b'L',
    };
    let manner = match termination.manner {
        Manner::Fin => b'F',
        Manner::ResetReceived => b'R',
        Manner::ResetSent => b'S',
        Manner::Truncated => b'T',
        Manner::Timeout => b'O',
        Manner::Refused => b'X',
        Manner::Limit => b'L',
        Manner::Violation => b'V',
    };
    [initiator, phase, manner]
}

macro_rules! rows {
    ($(#[$doc:meta])* $table:ident {
        $($initiator:ident $phase:ident $manner:ident $ordinary:ident: $meaning:literal, $advice:literal;)*
    }) => {
        $(#[$doc])*
        const $table: &[Row] = &[$(Row {
            termination: Termination {
                initiator: Initiator::$initiator,
                phase: Phase::$phase,
                manner: Manner::$manner,
            },
            ordinary: rows!(@ordinary $ordinary),
            meaning: $meaning,
            advice: $advice,
        },)*];
    };
    (@ordinary ordinary) => { true };
    (@ordinary abnormal) => { false };
}

rows! {
    /// How sessions end.
    DOWNSTREAM {
        Downstream Accept Fin ordinary:
            "The client connected and left without a byte.",
            "Nothing: health checks, port scans and spare connections of clients look like this.";
        Downstream Accept ResetReceived abnormal:
            "The client connected and reset without a byte.",
            "Nothing, unless there are many: some health checks end so.";
        Downstream Queue Fin abnormal:
            "The client ended in the middle of its request, while that waited for an upstream connection.",
            "Compare its timeout with the wait times; a larger pool or a faster service shortens them.";
        Downstream Queue ResetReceived abnormal:
            "The client reset while it waited for an upstream connection.",
            "As above: clients give up before `wait_timeout`.";
        Downstream Request Truncated abnormal:
            "The client ended in the middle of its request.",
            "Look at the client: it did not send what it announced.";
        Downstream Request ResetReceived abnormal:
            "The client reset before its answer began.",
            "The client crashed, or its timeout is shorter than the exchange.";
        Downstream Request Violation abnormal:
            "The client's request broke the protocol; it was answered with an error where that was possible.",
            "`refusals` names the rule; a burst of these is an attack or a broken client.";
        Downstream Response Fin abnormal:
            "The client ended in the middle of its request, when its answer had begun.",
            "Look at the client: it did not send what it announced.";
        Downstream Response ResetReceived abnormal:
            "The client reset in the middle of its answer.",
            "The client crashed, was stopped, or closed with bytes unread.";
        Downstream Idle Fin ordinary:
            "The client closed between exchanges or closed its tunnel, or had asked that its answer be the last.",
            "Nothing: this is how a session should end.";
        Downstream Idle ResetReceived abnormal:
            "The client reset between exchanges.",
            "No answer was lost; the client closes abortively or with bytes unread.";
        Upstream Queue Refused abnormal:
            "No endpoint could be connected to; the client got an error.",
            "Look at `connects` of the upstream and at the service.";
        Upstream Request Fin abnormal:
            "The service ended its connection without an answer; the client got an error.",
            "Look at the service's log and its limits of time and requests for each connection.";
        Upstream Request Violation abnormal:
            "The service's answer broke the protocol before any of it went on; the client got an error.",
            "Look at the service: its answers can't be delimited safely.";
        Upstream Response Fin ordinary:
            "The answer ended where the service's connection did, or the service closed a tunnel.",
            "Nothing; an answer with a length or in chunks would let both connections live on.";
        Upstream Response Truncated abnormal:
            "The service died in the middle of its answer.",
            "Look at the service's log: it crashed, was stopped, or hit a timeout.";
        Upstream Response ResetSent abnormal:
            "The service reset an open tunnel, and the reset was passed on.",
            "Look at the service's log.";
        Upstream Response Violation abnormal:
            "The service's answer broke its own framing after it had begun.",
            "Look at the service: its answers can't be delimited safely.";
        Millpond Accept Timeout ordinary:
            "The client sent nothing within the time for it.",
            "Nothing: a spare connection that was never used.";
        Millpond Queue Limit abnormal:
            "The wait queue was full, or this host could not dial; the client got an error.",
            "`refusals` tells which. For `dial_shortage` the log says what is missing; else a larger pool if the service can bear it, a faster service, or fewer clients at once.";
        Millpond Queue Timeout abnormal:
            "No upstream connection came free within `wait_timeout`; the client got an error.",
            "As above; `wait_timeout` bounds how long each may wait.";
        Millpond Request Timeout abnormal:
            "The request was not complete in time, or the service did not answer within `response_timeout`.",
            "`refusals` tells which: head, body or response.";
        Millpond Request Limit abnormal:
            "The request was over a size limit; the client got an error.",
            "`refusals` names it; raise the limit if such requests are meant.";
        Millpond Response Timeout abnormal:
            "The client stopped taking its answer or giving its request, or the service stopped in the middle of its answer.",
            "A slow or stuck client or service; `discards` of the upstream tell which.";
        Millpond Response Fin ordinary:
            "The service answered before the request was complete, so this answer was the last.",
            "Nothing.";
        Millpond Idle Timeout ordinary:
            "The session, or its tunnel, was idle for `idle_timeout`.",
            "Nothing; clients that reuse a connection at that moment must be able to retry.";
        Millpond Close Timeout abnormal:
            "A tunnel was open in one direction only for `half_close_timeout`.",
            "One end has nothing more to say, and the other does not close.";
        Kernel Request Fin abnormal:
            "The service vanished before its answer; the client got an error.",
            "A network fault, or a service host that went away without a word.";
        Kernel Response Truncated abnormal:
            "The service vanished in the middle of its answer.",
            "A network fault, or a service host that went away without a word.";
        Kernel Response ResetSent abnormal:
            "The service of an open tunnel vanished, and the client was reset.",
            "A network fault, or a service host that went away without a word.";
        Kernel Accept Timeout abnormal:
            "The client vanished before its first byte.",
            "A network fault, or a client host that went away without a word.";
        Kernel Queue Timeout abnormal:
            "The client vanished while it waited.",
            "A network fault, or a client host that went away without a word.";
        Kernel Request Timeout abnormal:
            "The client vanished before its answer began.",
            "A network fault, or a client host that went away without a word.";
        Kernel Response Timeout abnormal:
            "The client vanished in the middle of its answer.",
            "A network fault, or a client host that went away without a word.";
        Kernel Idle Timeout abnormal:
            "The client vanished between exchanges: `keepalive` found it out.",
            "A network fault, or a middlebox that forgets idle connections sooner than `keepalive`.";
        Operator Accept Fin ordinary:
            "The session had not said anything within its time when the drain came.",
            "Nothing.";
        Operator Idle Fin ordinary:
            "The session was closed between exchanges for a drain or a command.",
            "Nothing.";
        Operator Response Fin ordinary:
            "The session ended with the answer that was under way when the drain came.",
            "Nothing.";
        Operator Request Refused abnormal:
            "A request came when millpond was stopping; the client got an error.",
            "A longer `grace` lets the balancer in front notice first.";
        Operator Accept ResetSent abnormal:
            "The session was cut off by a command or at the end of `drain_timeout`.",
            "Nothing was lost.";
        Operator Queue ResetSent abnormal:
            "The session was cut off while it waited.",
            "A longer `drain_timeout` would have let it finish.";
        Operator Request ResetSent abnormal:
            "The session was cut off before its answer began.",
            "A longer `drain_timeout` would have let it finish.";
        Operator Response ResetSent abnormal:
            "The session was cut off in the middle of its answer.",
            "A longer `drain_timeout` would have let it finish.";
        Operator Idle ResetSent abnormal:
            "The session was cut off between exchanges.",
            "Nothing was lost.";
    }
}

rows! {
    /// How upstream connections end.
    UPSTREAM {
        Upstream Connect Refused abnormal:
            "Nobody listens at the endpoint.",
            "Is the service running, and is the address right?";
        Upstream Idle Fin ordinary:
            "The service closed it while it was idle.",
            "Nothing; an `idle_timeout` below the service's own avoids the race that comes with it.";
        Upstream Idle ResetReceived abnormal:
            "The service reset it while it was idle.",
            "The service was restarted, or a middlebox forgot the connection.";
        Upstream Idle Violation abnormal:
            "The service sent bytes that nobody had asked for while it was idle.",
            "The connection can't be trusted any more and was closed; look at the service.";
        Upstream Request Fin abnormal:
            "The service closed after a request was written, without an answer.",
            "A lost keep-alive race, or a service that died; `retries` and `races_lost` tell.";
        Upstream Request ResetReceived abnormal:
            "The service reset after a request was written, without an answer.",
            "A lost keep-alive race, or a service that crashed; `retries` and `races_lost` tell.";
        Upstream Request Truncated abnormal:
            "The service's answer ended before the request was complete.",
            "Look at the service: it answers without reading what it was sent.";
        Upstream Request Violation abnormal:
            "The service's answer was none, or crossed the request.",
            "`discards` names the rule.";
        Upstream Response Fin ordinary:
            "The service closed with its answer, as the protocol had announced.",
            "Nothing; without keep-alive at the service each exchange needs a new connection.";
        Upstream Response Truncated abnormal:
            "The service closed in the middle of its answer.",
            "Look at the service's log: it crashed, was stopped, or hit a timeout.";
        Upstream Response ResetReceived abnormal:
            "The service reset in the middle of its answer.",
            "Look at the service's log: it crashed, or gave the answer up.";
        Upstream Response Violation abnormal:
            "The service's answer broke its own framing, or bytes came after its end.",
            "Look at the service: its answers can't be delimited safely.";
        Downstream Request ResetSent abnormal:
            "The client left before its answer began, and its connection was given up.",
            "Compare the client's timeout with how long exchanges take.";
        Downstream Request Truncated abnormal:
            "The client left in the middle of its request.",
            "Look at the client: it did not send what it announced.";
        Downstream Request Violation abnormal:
            "The client's request broke the protocol after some of it had been passed on.",
            "`refusals` of the listener names the rule.";
        Downstream Response Fin ordinary:
            "A tunnel's client closed it.",
            "Nothing.";
        Downstream Response Truncated abnormal:
            "The client left in the middle of its request, when its answer had already begun.",
            "Look at the client: it did not send what it announced.";
        Downstream Response ResetSent abnormal:
            "The client left in the middle of its answer, and more of it was to come than may be dropped.",
            "`abandon_bytes` bounds how much is read and dropped to keep such a connection.";
        Millpond Connect Timeout abnormal:
            "The endpoint did not accept within `connect_timeout`.",
            "A host that is down, a firewall that drops, or an overflowing accept queue.";
        Millpond Connect Refused abnormal:
            "This host could not dial: no free port, no descriptor, or no permission.",
            "`connects` names which.";
        Millpond Idle Fin ordinary:
            "Retired in order.",
            "Nothing; `discards` names the reason.";
        Millpond Idle Timeout ordinary:
            "Retired after `idle_timeout`, or shortly before the service would have closed it.",
            "Nothing.";
        Millpond Idle Limit ordinary:
            "Retired at `max_lifetime` or `max_exchanges`, or because `size` was made smaller.",
            "Nothing; `discards` names which.";
        Millpond Idle Violation abnormal:
            "Closed on a doubt about its boundary.",
            "`discards` names the rule.";
        Millpond Request Timeout abnormal:
            "The service did not answer within `response_timeout`, or the client stopped giving its request.",
            "`discards` tells which; raise the timeout if such answers are meant.";
        Millpond Request Limit abnormal:
            "The request went over a limit after some of it had been passed on.",
            "`refusals` of the listener names it.";
        Millpond Response Timeout abnormal:
            "The service stopped in the middle of its answer, or the client took no more of it.",
            "`discards` tells which.";
        Millpond Response ResetSent abnormal:
            "A limit of time passed while one side of a tunnel took nothing of what was read for it.",
            "One end is stuck; what was read for it is lost.";
        Kernel Connect Refused abnormal:
            "No route to the endpoint, or the network said no.",
            "`connects` names which.";
        Kernel Request ResetSent abnormal:
            "The client vanished before its answer began, and its connection was given up.",
            "A network fault, or a client host that went away without a word.";
        Kernel Response ResetSent abnormal:
            "The client vanished in the middle of its answer or its tunnel, and its connection was given up.",
            "A network fault, or a client host that went away without a word.";
        Kernel Idle Timeout abnormal:
            "The service vanished while it was idle: `keepalive` found it out.",
            "A network fault, or a middlebox that forgets idle connections sooner than `keepalive`.";
        Kernel Request Timeout abnormal:
            "The service vanished under a request: `user_timeout` passed.",
            "A network fault, or a service host that went away without a word.";
        Kernel Response Timeout abnormal:
            "The service vanished in the middle of its answer.",
            "A network fault, or a service host that went away without a word.";
        Operator Connect Fin ordinary:
            "A drain, or the removal of its endpoint, came while it was being made.",
            "Nothing.";
        Operator Idle Fin ordinary:
            "Closed for a drain, a flush or a reload.",
            "Nothing.";
        Operator Request ResetSent abnormal:
            "Cut off before its answer began.",
            "A longer `drain_timeout` would have let it finish.";
        Operator Response ResetSent abnormal:
            "Cut off in the middle of its answer.",
            "A longer `drain_timeout` would have let it finish.";
    }
}

#[cfg(test)]
mod tests;
