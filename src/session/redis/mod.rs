//! A session that speaks RESP: its commands go over connections that it shares with others, as long as
//! they leave nothing behind there.
//!
//! ```text
//!  Free ──MULTI, WATCH──► Transaction ──EXEC, DISCARD, UNWATCH──► Free
//!    ├────SUBSCRIBE, MONITOR, TRACKING──► Streaming ──► the end
//!    └────READONLY and the like──► Kept ──► the end
//! ```
//!
//! What is about the client's own connection (SELECT, AUTH, HELLO, CLIENT …) ends here (see `local`);
//! what needs an upstream connection of its own gets one (see `pinned`). Not here: what a command is
//! (see `protocol::redis`), and moving bytes (see `conversation`).
//!
//! Invariant: nothing goes over a shared connection that is not whole and sound, has one reply, and leaves
//! the connection as it was.

mod local;
mod need;
mod pinned;
mod transaction;

use std::sync::Arc;
use std::time::Instant;

use self::transaction::Transaction;
use super::conversation::{Conversation, Refusal, Requests, SHARED_REQUEST_BYTES_MAX, Unsent};
use super::{Session, SessionEnd, refusal};
use crate::config::checked;
use crate::protocol::redis::{
    Arguments, Identity, LeaseNeed, Limits, Redis, Refused, RequestFramer, RequestViolation, Scan,
    Shape, Treatment, canonical, is_inline, may_be_queued, treatment,
};
use crate::relay::shared::{Left, Links, Nature, Run};
use crate::stats::reason::{LeaseReason, RefusalReason};
use crate::sys::clock;

/// Requests that are handed over at once, at most.
const BATCH_MAX: usize = 1024;

/// What a session of RESP remembers of its client.
struct Conversing {
    conversation: Conversation<Redis>,
    framer: RequestFramer,
    next: Option<Next>,
    /// The request that comes began then.
    request_since: Option<Instant>,
    hold: Hold,
    name: Option<Vec<u8>>,
    replies: ReplyMode,
}

/// What stands at the front of the client's bytes.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// A command of so many bytes.
    Command(usize, Treatment),
    /// The same in a line, which is written otherwise first.
    Line(usize),
    /// Bytes that ask for nothing.
    Blank(usize),
    /// Whole commands that are shared: bytes, how many, and what is known of them.
    Shared(usize, usize, Nature),
    /// The client broke the protocol.
    Violation(RequestViolation),
    /// More bytes are needed.
    Nothing,
}

/// What the session's own connection is held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// There is none.
    Free,
    /// Keys that are watched, or commands that are queued.
    Transaction(Transaction),
    /// The service says things unasked; to the session's end.
    Streaming,
    /// A flag of the connection; to the session's end.
    Kept,
}

/// What the client wants to see (CLIENT REPLY).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplyMode {
    On,
    Off,
    /// All but the next reply.
    Skip,
}

/// Serves the client to the end of its connection.
pub(super) async fn serve(session: &mut Session, links: Arc<Links<Redis>>) -> SessionEnd {
    let mut conversing = Conversing {
        conversation: Conversation::new(links, clock::now()),
        framer: RequestFramer::new(Limits::default()),
        next: None,
        request_since: None,
        hold: Hold::Free,
        name: None,
        replies: ReplyMode::On,
    };
    loop {
        if let Err(end) = conversing.step(session).await {
            conversing.conversation.leave();
            return end;
        }
    }
}

impl Conversing {
    /// Does what stands at the front of the client's bytes, or waits for more of them.
    async fn step(&mut self, session: &mut Session) -> Result<(), SessionEnd> {
        if self.conversation.is_idle() && self.next.is_none() && session.client.inbound.is_empty() {
            self.conversation.rest();
            session.await_request().await?;
            session.renew_rules();
        }
        self.conversation.heed_drain(session).await?;
        let next = match self.next.take() {
            Some(next) => next,
            None => self.scan(session),
        };
        let done = match next {
            Next::Shared(bytes, commands, nature) => {
                self.share(session, bytes, commands, nature).await
            }
            Next::Command(bytes, treatment) => self.command(session, bytes, treatment).await,
            Next::Line(bytes) => self.line(session, bytes).await,
            Next::Blank(bytes) => {
                session.client.inbound.consume(bytes);
                Ok(())
            }
            Next::Violation(violation) => return Err(self.turn_away(session, violation).await),
            Next::Nothing => return self.await_more(session).await,
        };
        match done {
            Ok(()) => Ok(()),
            Err(Unsent::End(end)) => Err(end),
            Err(Unsent::Refused(_) | Unsent::NoRoom) => {
                unreachable!("what was not handed over was answered where it was noticed")
            }
        }
    }

    /// Looks at what the client has sent. As many commands as may be shared are taken together.
    fn scan(&mut self, session: &Session) -> Next {
        let bytes = session.client.inbound.filled();
        let overrides = overrides(session);
        let (mut taken, mut commands) = (0, 0);
        let mut nature = Nature::ReadOnly;
        let next = loop {
            let rest = &bytes[taken..];
            let length = match self.framer.scan(rest) {
                Ok(Scan::Whole { bytes }) => bytes,
                Ok(Scan::Blank { bytes }) => break Next::Blank(bytes),
                Ok(Scan::More) => break Next::Nothing,
                Err(violation) => break Next::Violation(violation),
            };
            if is_inline(rest) {
                break Next::Line(length);
            }
            let treatment = treated(&rest[..length], overrides);
            let Treatment::Share { read_only } = treatment else {
                break Next::Command(length, treatment);
            };
            if self.hold != Hold::Free || self.replies == ReplyMode::Skip {
                break Next::Command(length, treatment);
            }
            if !read_only {
                nature = Nature::Each;
            }
            taken += length;
            commands += 1;
            if commands == BATCH_MAX {
                return Next::Shared(taken, commands, nature);
            }
        };
        if commands == 0 {
            return next;
        }
        if !matches!(next, Next::Nothing) {
            self.next = Some(next);
        }
        Next::Shared(taken, commands, nature)
    }

    /// Hands whole commands over to a connection that others share; where there is none, to one of the
    /// session's own.
    async fn share(
        &mut self,
        session: &mut Session,
        bytes: usize,
        commands: usize,
        nature: Nature,
    ) -> Result<(), Unsent> {
        self.request_since = None;
        let run = Run::of(self.shape(), commands, nature);
        let sent = self
            .conversation
            .send(session, Requests::Front(bytes), run)
            .await;
        match sent {
            Ok(()) => {
                session.client.facts.count_exchanges(commands);
                self.after_reply();
                Ok(())
            }
            Err(Unsent::NoRoom) => {
                let left = Left::Nothing;
                self.over_own(session, (bytes, commands), LeaseReason::NoRoom, left)
                    .await
            }
            Err(unsent) => self.answer_for(session, bytes, commands, unsent).await,
        }
    }

    /// Answers commands in the service's place, and drops them.
    async fn answer_for(
        &mut self,
        session: &mut Session,
        bytes: usize,
        commands: usize,
        unsent: Unsent,
    ) -> Result<(), Unsent> {
        let refusal = match unsent {
            Unsent::End(end) => return Err(Unsent::End(end)),
            Unsent::Refused(refusal) => refusal,
            Unsent::NoRoom => Refusal::Ours(RefusalReason::QueueFull),
        };
        self.conversation.settle(session).await?;
        session.client.inbound.consume(bytes);
        session.client.facts.count_exchanges(commands);
        let shape = self.shape();
        for _ in 0..commands {
            let refused = self.conversation.refuse(session, shape, &refusal);
            refused.map_err(Unsent::End)?;
        }
        self.after_reply();
        Ok(())
    }

    /// Does what one command asks for.
    async fn command(
        &mut self,
        session: &mut Session,
        bytes: usize,
        treatment: Treatment,
    ) -> Result<(), Unsent> {
        self.request_since = None;
        if self.hold != Hold::Free {
            return self.over_held(session, bytes, treatment).await;
        }
        match treatment {
            Treatment::Share { read_only } => {
                self.share(session, bytes, 1, Nature::of(read_only)).await
            }
            Treatment::Answer(local) => {
                self.conversation.settle(session).await?;
                self.answer(session, bytes, local).await
            }
            Treatment::Refuse(refused) => {
                self.conversation.settle(session).await?;
                session.client.inbound.consume(bytes);
                self.error(session, refused.message());
                Ok(())
            }
            Treatment::Lease(LeaseNeed::Transaction) => match self.block(session) {
                Some((bytes, commands)) => {
                    self.share(session, bytes, commands, Nature::Block).await
                }
                None => self.lease(session, bytes, LeaseNeed::Transaction).await,
            },
            Treatment::Lease(need) => self.lease(session, bytes, need).await,
        }
    }

    /// The whole block from MULTI at the front to its EXEC, where that is here and may go unbroken.
    fn block(&mut self, session: &Session) -> Option<(usize, usize)> {
        if self.replies == ReplyMode::Skip {
            return None;
        }
        let bytes = session.client.inbound.filled();
        let mut framer = RequestFramer::new(Limits::default());
        let (mut taken, mut commands) = (0, 0);
        loop {
            let rest = &bytes[taken..];
            let Ok(Scan::Whole { bytes: length }) = framer.scan(rest) else {
                return None;
            };
            let arguments = Arguments::new(&rest[..length])?;
            taken += length;
            commands += 1;
            let is_exec = arguments.name().eq_ignore_ascii_case(b"EXEC");
            if (commands == 1 || is_exec) && arguments.count() != 1 {
                return None;
            }
            if is_exec {
                break;
            }
            // If MULTI is refused, what follows it is executed at once, and must not wait.
            let treatment = treated(&rest[..length], overrides(session));
            let is_waiting = matches!(treatment, Treatment::Lease(LeaseNeed::Blocking));
            if commands > 1 && (is_waiting || !may_be_queued(&treatment)) {
                return None;
            }
        }
        Some((taken, commands))
    }

    /// A command in a line is written as the others are, and looked at again.
    async fn line(&mut self, session: &mut Session, bytes: usize) -> Result<(), Unsent> {
        let mut command = Vec::new();
        if let Err(violation) = canonical(&session.client.inbound.filled()[..bytes], &mut command) {
            return Err(Unsent::End(self.turn_away(session, violation).await));
        }
        session.client.inbound.replace_front(bytes, &command);
        let length = command.len();
        let treatment = treated(&command, overrides(session));
        self.next = Some(Next::Command(length, treatment));
        Ok(())
    }

    /// Waits until the next command is here; what is too large for that goes its own way.
    async fn await_more(&mut self, session: &mut Session) -> Result<(), SessionEnd> {
        let client = &mut session.client;
        if client.inbound.is_full() {
            if !client.inbound.is_held_at_least(SHARED_REQUEST_BYTES_MAX) {
                client.inbound.hold_at_least(SHARED_REQUEST_BYTES_MAX);
                return Ok(());
            }
            return match self.large(session).await {
                Ok(()) => Ok(()),
                Err(Unsent::End(end)) => Err(end),
                Err(Unsent::Refused(_) | Unsent::NoRoom) => Err(self.too_large(session).await),
            };
        }
        let since = &mut self.request_since;
        self.conversation.await_bytes(session, since).await
    }

    /// Says what the client did wrong, and ends its session.
    async fn turn_away(
        &mut self,
        session: &mut Session,
        violation: RequestViolation,
    ) -> SessionEnd {
        let reply = match self.hold {
            // It would stand in the midst of what the service says.
            Hold::Streaming => Vec::new(),
            _ => format!("-{}\r\n", violation.message()).into_bytes(),
        };
        let reason = RefusalReason::BadCommand;
        self.conversation.say_last(session, &reply, reason).await
    }

    async fn too_large(&mut self, session: &mut Session) -> SessionEnd {
        let reason = RefusalReason::NoLeases;
        let (_, sentence) = refusal::answer(reason);
        let reply = format!("-ERR millpond: {sentence}\r\n");
        self.conversation
            .say_last(session, reply.as_bytes(), reason)
            .await
    }

    /// Answers with an error of millpond's. Nothing is in flight.
    fn error(&mut self, session: &mut Session, message: &str) {
        session.count_refused_exchange();
        session.count_refusal(RefusalReason::CommandRefused);
        self.say(format!("-{message}\r\n").as_bytes());
    }

    /// Answers in the service's place, if the client wants to see it. Nothing is in flight.
    fn say(&mut self, reply: &[u8]) {
        if self.shape() == Shape::Shown {
            self.conversation.answer(reply);
        }
        self.after_reply();
    }

    /// Whether the client wants to see the next reply.
    fn shape(&self) -> Shape {
        match self.replies {
            ReplyMode::On => Shape::Shown,
            ReplyMode::Off | ReplyMode::Skip => Shape::Hidden,
        }
    }

    fn after_reply(&mut self) {
        if self.replies == ReplyMode::Skip {
            self.replies = ReplyMode::On;
        }
    }

    fn identity(&self) -> &Identity {
        &self.conversation.known.identity
    }
}

fn overrides(session: &Session) -> &checked::Redis {
    match &session.rules.upstream_settings.protocol {
        checked::Protocol::Redis(redis) => redis,
        _ => unreachable!("a session keeps its protocol; see renew_rules"),
    }
}

/// What becomes of a whole command, by the table and by what the operator says otherwise.
fn treated(command: &[u8], overrides: &checked::Redis) -> Treatment {
    let Some(arguments) = Arguments::new(command) else {
        return Treatment::Lease(LeaseNeed::Unknown);
    };
    let found = match treatment(&arguments) {
        // Something of a later version, about a connection that is not the client's. Clients ask for such
        // things when they connect, and know that a service may not have them.
        Treatment::Lease(LeaseNeed::Unknown)
            if arguments.name().eq_ignore_ascii_case(b"CLIENT") =>
        {
            Treatment::Refuse(Refused::ClientSubcommand)
        }
        found => found,
    };
    let checked::Redis {
        lease,
        share,
        refuse,
        allow,
    } = overrides;
    if lease.is_empty() && share.is_empty() && refuse.is_empty() && allow.is_empty() {
        return found;
    }
    let is_in = |commands: &[String]| {
        let name = arguments.name();
        commands
            .iter()
            .any(|it| it.as_bytes().eq_ignore_ascii_case(name))
    };
    match found {
        _ if is_in(refuse) => Treatment::Refuse(Refused::Configured),
        Treatment::Refuse(_) if is_in(allow) => Treatment::Lease(LeaseNeed::Unknown),
        Treatment::Share { .. } if is_in(lease) => Treatment::Lease(LeaseNeed::Slow),
        Treatment::Lease(LeaseNeed::Unknown) if is_in(share) => {
            Treatment::Share { read_only: false }
        }
        found => found,
    }
}
