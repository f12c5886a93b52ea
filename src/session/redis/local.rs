//! Commands that are about the client's own connection, which ends at millpond: they are answered here,
//! as Redis answers them.
//!
//! Invariant: what a client says of itself never reaches a connection that others share; who it is takes
//! effect only once the service has accepted it.

use std::sync::Arc;
use std::time::Duration;

use super::{Conversing, ReplyMode};
use crate::close::{Initiator, Manner, Phase};
use crate::protocol::redis::{
    Arguments, Credentials, Identity, Local, Redis, Version, write_bulk, write_command,
};
use crate::relay::shared::{Known, Left, Nature, Patience, Run};
use crate::session::conversation::{Refusal, Requests, Unsent, Until};
use crate::session::{Session, SessionEnd, refusal};
use crate::stats::reason::LeaseReason;
use crate::sys::clock;

/// For so long the service is not asked again whether it accepts a user that it has accepted.
const PROVEN_FOR: Duration = Duration::from_secs(30);

const SYNTAX: &str = "ERR syntax error";
const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";
const NO_PROTOCOL: &str = "NOPROTO unsupported protocol version";

impl Conversing {
    /// Answers the command at the front. Nothing is in flight.
    pub(super) async fn answer(
        &mut self,
        session: &mut Session,
        bytes: usize,
        local: Local,
    ) -> Result<(), Unsent> {
        let command = session.client.inbound.filled()[..bytes].to_vec();
        session.client.inbound.consume(bytes);
        session.client.facts.count_exchanges(1);
        let arguments: Vec<&[u8]> = match Arguments::new(&command) {
            Some(arguments) => arguments.iter().collect(),
            None => Vec::new(),
        };
        let rest = arguments.get(1..).unwrap_or_default();
        match local {
            Local::Ping => match rest {
                [] => self.say(b"+PONG\r\n"),
                [text] => self.say_text(text),
                _ => self.wrong_count("ping"),
            },
            Local::Echo => match rest {
                [text] => self.say_text(text),
                _ => self.wrong_count("echo"),
            },
            Local::Quit => {
                self.say(b"+OK\r\n");
                let flushed = self.conversation.wait(session, Until::Flushed).await;
                let (initiator, phase) = (Initiator::Downstream, Phase::Idle);
                let end = SessionEnd::graceful(initiator, phase, Manner::Fin);
                return Err(Unsent::End(flushed.err().unwrap_or(end)));
            }
            Local::Reset => {
                self.forget_client();
                self.say(b"+RESET\r\n");
            }
            Local::Select => return self.select(session, rest).await,
            Local::Auth => return self.authenticate(session, rest).await,
            Local::Hello => return self.hello(session, rest).await,
            Local::ClientId => {
                let id = session.client.facts.id + 1;
                self.say(format!(":{id}\r\n").as_bytes());
            }
            Local::ClientGetName => match self.name.take() {
                Some(name) => {
                    self.say_text(&name);
                    self.name = Some(name);
                }
                None => self.say_null(),
            },
            Local::ClientSetName => match rest {
                [_, name] if is_name(name) => {
                    self.name = (!name.is_empty()).then(|| name.to_vec());
                    self.say(b"+OK\r\n");
                }
                [_, _] => self.say_error(BAD_NAME),
                _ => self.wrong_count("client|setname"),
            },
            Local::ClientSetInfo => match rest {
                [_, _, value] if is_name(value) => self.say(b"+OK\r\n"),
                [_, _, _] => self.say_error(BAD_NAME),
                _ => self.wrong_count("client|setinfo"),
            },
            Local::ClientReply => self.set_replies(rest),
        }
        Ok(())
    }

    async fn select(&mut self, session: &mut Session, rest: &[&[u8]]) -> Result<(), Unsent> {
        let [database] = rest else {
            self.wrong_count("select");
            return Ok(());
        };
        let Some(database) = number(database) else {
            self.say_error("ERR value is not an integer or out of range");
            return Ok(());
        };
        let mut identity = self.identity().clone();
        identity.database = database;
        if self.become_proven(session, identity, false).await? {
            self.say(b"+OK\r\n");
        }
        Ok(())
    }

    async fn authenticate(&mut self, session: &mut Session, rest: &[&[u8]]) -> Result<(), Unsent> {
        let user = match rest {
            [password] => credentials(None, password),
            [name, password] => credentials(Some(name), password),
            [] => {
                self.wrong_count("auth");
                return Ok(());
            }
            _ => {
                self.say_error(SYNTAX);
                return Ok(());
            }
        };
        let mut identity = self.identity().clone();
        identity.user = Some(user);
        if self.become_proven(session, identity, true).await? {
            self.say(b"+OK\r\n");
        }
        Ok(())
    }

    /// `HELLO [version [AUTH name password] [SETNAME name]]`
    async fn hello(&mut self, session: &mut Session, rest: &[&[u8]]) -> Result<(), Unsent> {
        let mut identity = self.identity().clone();
        let (mut is_user_new, mut name) = (false, None);
        let options = match rest {
            [] => rest,
            [version, options @ ..] => {
                identity.version = match number(version) {
                    Some(2) => Version::Resp2,
                    Some(3) => Version::Resp3,
                    Some(_) => {
                        self.say_error(NO_PROTOCOL);
                        return Ok(());
                    }
                    None => {
                        let text = "ERR Protocol version is not an integer or out of range";
                        self.say_error(text);
                        return Ok(());
                    }
                };
                options
            }
        };
        let mut options = options;
        loop {
            options = match options {
                [] => break,
                [option, user, password, more @ ..] if option.eq_ignore_ascii_case(b"AUTH") => {
                    identity.user = Some(credentials(Some(user), password));
                    is_user_new = true;
                    more
                }
                [option, text, more @ ..] if option.eq_ignore_ascii_case(b"SETNAME") => {
                    if !is_name(text) {
                        self.say_error(BAD_NAME);
                        return Ok(());
                    }
                    name = Some(text.to_vec());
                    more
                }
                [option, ..] => {
                    let option = String::from_utf8_lossy(option).into_owned();
                    self.say_error(&format!(
                        "ERR Syntax error in HELLO option '{}'",
                        plain(&option)
                    ));
                    return Ok(());
                }
            };
        }
        if !self.become_proven(session, identity, is_user_new).await? {
            return Ok(());
        }
        if let Some(name) = name {
            self.name = (!name.is_empty()).then_some(name);
        }
        self.greet(session).await
    }

    /// Has the service say what it is: on a connection that speaks this version already that changes
    /// nothing.
    async fn greet(&mut self, session: &mut Session) -> Result<(), Unsent> {
        let version: &[u8] = match self.identity().version {
            Version::Resp2 => b"2",
            Version::Resp3 => b"3",
        };
        let mut request = Vec::new();
        write_command(&[b"HELLO", version], &mut request);
        let run = Run::one(self.shape(), Nature::Each);
        let requests = Requests::Given(&request);
        match self.conversation.send(session, requests, run).await {
            Ok(()) => {
                self.after_reply();
                Ok(())
            }
            Err(Unsent::NoRoom) => {
                let known = self.conversation.known.clone();
                let pinned = self.conversation.pin(
                    session,
                    &known,
                    LeaseReason::NoRoom,
                    Patience::Short,
                    false,
                );
                if let Err(unsent) = pinned.await {
                    return self.answer_for(session, 0, 1, unsent).await;
                }
                if let Err(unsent) = self.conversation.send(session, requests, run).await {
                    self.conversation.give_back(Left::Everything);
                    return self.answer_for(session, 0, 1, unsent).await;
                }
                self.after_reply();
                self.conversation.settle(session).await?;
                self.conversation.give_back(Left::Nothing);
                Ok(())
            }
            Err(unsent) => self.answer_for(session, 0, 1, unsent).await,
        }
    }

    /// Is served as `identity` from now on, if the service accepts it; else the client has the service's
    /// answer.
    async fn become_proven(
        &mut self,
        session: &mut Session,
        identity: Identity,
        is_user_new: bool,
    ) -> Result<bool, Unsent> {
        let known = self.conversation.links.known(identity);
        let is_proven = is_proven(&known, is_user_new);
        let asked = match is_proven {
            true => Ok(()),
            false => self.prove(session, &known, is_user_new).await,
        };
        match asked {
            Ok(()) => {}
            Err(Unsent::End(end)) => return Err(Unsent::End(end)),
            Err(Unsent::Refused(Refusal::Service(reply))) => {
                self.say(&reply);
                return Ok(false);
            }
            Err(Unsent::Refused(Refusal::Ours(reason))) => {
                session.count_refusal(reason);
                let (_, sentence) = refusal::answer(reason);
                self.say_error(&format!("ERR millpond: {sentence}"));
                return Ok(false);
            }
            Err(Unsent::NoRoom) => unreachable!("a connection of its own needs no room"),
        }
        self.conversation.serve_as(known);
        Ok(true)
    }

    /// The client is as new: RESET.
    pub(super) fn forget_client(&mut self) {
        self.name = None;
        self.replies = ReplyMode::On;
        let known = self.conversation.links.known(Identity::default());
        self.conversation.serve_as(known);
    }

    /// Asks the service whether it accepts who is to be served: on a connection that is shared from then
    /// on, where there is none yet, else on one of the session's own.
    async fn prove(
        &mut self,
        session: &mut Session,
        known: &Arc<Known<Redis>>,
        is_user_new: bool,
    ) -> Result<(), Unsent> {
        let conversation = &mut self.conversation;
        let _alone = conversation.ask_alone(session, known).await?;
        if is_proven(known, is_user_new) {
            return Ok(());
        }
        let is_new = known.proven_at().is_none();
        if is_new && conversation.is_accepted(session, known).await? {
            return Ok(());
        }
        let reason = LeaseReason::Identity;
        conversation
            .pin(session, known, reason, Patience::Short, true)
            .await?;
        conversation.give_back(Left::Nothing);
        Ok(())
    }

    fn set_replies(&mut self, rest: &[&[u8]]) {
        match rest {
            [_, mode] if mode.eq_ignore_ascii_case(b"ON") => {
                self.replies = ReplyMode::On;
                self.say(b"+OK\r\n");
            }
            [_, mode] if mode.eq_ignore_ascii_case(b"OFF") => self.replies = ReplyMode::Off,
            [_, mode] if mode.eq_ignore_ascii_case(b"SKIP") => {
                if self.replies == ReplyMode::On {
                    self.replies = ReplyMode::Skip;
                }
            }
            [_, _] => self.say_error(SYNTAX),
            _ => self.wrong_count("client|reply"),
        }
    }

    fn say_text(&mut self, text: &[u8]) {
        let mut reply = Vec::with_capacity(text.len() + 16);
        write_bulk(text, &mut reply);
        self.say(&reply);
    }

    fn say_null(&mut self) {
        match self.identity().version {
            Version::Resp2 => self.say(b"$-1\r\n"),
            Version::Resp3 => self.say(b"_\r\n"),
        }
    }

    fn say_error(&mut self, text: &str) {
        self.say(format!("-{text}\r\n").as_bytes());
    }

    fn wrong_count(&mut self, command: &str) {
        self.say_error(&format!(
            "ERR wrong number of arguments for '{command}' command"
        ));
    }
}

/// Whether the service need not be asked: who has authenticated only now is not accepted for long.
fn is_proven(known: &Known<Redis>, is_user_new: bool) -> bool {
    let proven_at = known.proven_at();
    let is_recent = |at| clock::now().saturating_duration_since(at) < PROVEN_FOR;
    known.identity == Identity::default()
        || proven_at.is_some_and(|at| !is_user_new || is_recent(at))
}

fn credentials(name: Option<&[u8]>, password: &[u8]) -> Credentials {
    Credentials {
        name: name.map(<[u8]>::to_vec),
        password: password.to_vec(),
    }
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// What `CLIENT SETNAME` takes: visible ASCII, without blanks.
fn is_name(text: &[u8]) -> bool {
    text.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

/// A text that can stand in the line of an error.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|letter| !letter.is_control())
        .take(64)
        .collect()
}
