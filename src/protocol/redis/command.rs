//! What becomes of a command: shared, answered by millpond, given a connection of its own, or refused.
//!
//! Not here: doing it, and what a connection of its own is kept for; the table says it of each command
//! (see [`rows`]).
//!
//! Invariant: a command that is in no row, or whose row needs an argument that is not in sight, gets
//! a connection of its own: nobody else can be hurt there.

use super::arguments::Arguments;
use super::table;

/// What millpond does with a command of a client that has no connection of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It goes on over the shared connection, which answers it once and is the same afterwards.
    Share {
        /// It changes nothing: it may be sent again when nobody knows whether it was executed.
        read_only: bool,
    },
    /// Millpond answers it, and keeps what it says about the client.
    Answer(Local),
    /// It needs an upstream connection of its own.
    Lease(LeaseNeed),
    /// It is answered with an error.
    Refuse(Refused),
}

/// A command about the client's connection, which ends at millpond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the command of its name")]
pub enum Local {
    Ping,
    Echo,
    Quit,
    Reset,
    Select,
    Auth,
    Hello,
    ClientId,
    ClientGetName,
    ClientSetName,
    ClientSetInfo,
    ClientReply,
}

/// Why a command needs a connection of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseNeed {
    /// `MULTI`, up to `EXEC`, `DISCARD` or `RESET`.
    Transaction,
    /// `WATCH`, up to `EXEC`, `DISCARD`, `UNWATCH` or `RESET`.
    Watch,
    /// It may wait for another client, up to its reply.
    Blocking,
    /// It may take long, up to its reply.
    Slow,
    /// It is about a command that runs or waits, and must not stand behind it; up to its reply.
    Overtaking,
    /// Subscriptions: nobody can tell what is still to come, so to the client's end.
    Subscribe,
    /// `MONITOR`, likewise.
    Monitor,
    /// `CLIENT TRACKING` and what belongs to it, likewise.
    Tracking,
    /// A flag of the connection in a cluster: `READONLY`, `ASKING`. To the client's end.
    Cluster,
    /// Another flag of the connection, likewise: not all of them end with `RESET`.
    ConnectionFlag,
    /// It is in no row, so nobody knows what it leaves behind.
    Unknown,
}

/// Why a command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// `SHUTDOWN`.
    Shutdown,
    /// `DEBUG` and its kind, which can crash the service or stop it.
    Debug,
    /// What replicas say, and what makes a service a replica.
    Replication,
    /// `CLIENT KILL` and `CLIENT UNBLOCK`: their ids are those of millpond's connections.
    ClientKill,
    /// `CLIENT PAUSE`.
    ClientPause,
    /// Code that is loaded into the service.
    Module,
    /// `ACL DELUSER`, `ACL LOAD`: they close the connections of others.
    AccessControl,
    /// What changes the cluster.
    Cluster,
    /// `WAIT`, `WAITAOF`: about the writes of the connection that they come on.
    Wait,
    /// A subcommand of `CLIENT` that is not known here.
    ClientSubcommand,
    /// An operator says so.
    Configured,
    /// It ends a transaction that was not begun.
    OutsideTransaction(Ending),
}

/// What ends a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// `EXEC`.
    Exec,
    /// `DISCARD`.
    Discard,
}

impl Refused {
    /// The error that answers it: what stands between `-` and CRLF.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::Shutdown => "ERR millpond: SHUTDOWN is not passed on",
            Self::Debug => "ERR millpond: commands that debug the service are not passed on",
            Self::Replication => "ERR millpond: commands of replication are not passed on",
            Self::ClientKill => {
                "ERR millpond: the ids of the service are those of connections that clients share"
            }
            Self::ClientPause => "ERR millpond: CLIENT PAUSE would stop all other clients",
            Self::Module => "ERR millpond: modules are not loaded or unloaded through it",
            Self::AccessControl => {
                "ERR millpond: this would close connections that other clients share"
            }
            Self::Cluster => "ERR millpond: the cluster is not changed through it",
            Self::Wait => {
                "ERR millpond: it would tell of the writes of a connection that clients share, \
                 not of yours"
            }
            Self::ClientSubcommand => "ERR millpond: unknown subcommand of CLIENT",
            Self::Configured => "ERR millpond: its operator does not have this command passed on",
            // The words of Redis.
            Self::OutsideTransaction(Ending::Exec) => "ERR EXEC without MULTI",
            Self::OutsideTransaction(Ending::Discard) => "ERR DISCARD without MULTI",
        }
    }
}

/// One command, or one subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// In upper case; a subcommand behind its command and a space: `CLIENT KILL`.
    pub name: &'static str,
    /// What becomes of it.
    pub rule: Rule,
    /// Why, or what it does: a phrase.
    pub meaning: &'static str,
}

/// What the table says of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The same, whatever its arguments are.
    Always(Treatment),
    /// What the row of its subcommand says; alone, this.
    BySubcommand(Treatment),
    /// [`LeaseNeed::Blocking`] with the option `BLOCK`, else shared.
    UnlessBlock {
        /// See [`Treatment::Share`].
        read_only: bool,
    },
}

/// All that millpond knows: the commands, then their subcommands, each in the order of names.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    table::COMMANDS.iter().chain(table::SUBCOMMANDS)
}

/// What becomes of a command. Of a command that is not whole yet, what its first arguments say.
#[must_use]
#[inline]
pub fn treatment(arguments: &Arguments<'_>) -> Treatment {
    match table::command(arguments.name()) {
        Some(Row {
            rule: Rule::Always(treatment),
            ..
        }) => *treatment,
        Some(row) => by_arguments(row.rule, arguments),
        None => Treatment::Lease(LeaseNeed::Unknown),
    }
}

fn by_arguments(rule: Rule, arguments: &Arguments<'_>) -> Treatment {
    match rule {
        Rule::Always(treatment) => treatment,
        Rule::BySubcommand(alone) if arguments.count() == 1 => alone,
        Rule::BySubcommand(_) => {
            let row = arguments
                .get(1)
                .and_then(|subcommand| table::subcommand(arguments.name(), subcommand));
            match row {
                Some(row) => by_arguments(row.rule, arguments),
                None => Treatment::Lease(LeaseNeed::Unknown),
            }
        }
        Rule::UnlessBlock { read_only } => {
            if blocks(arguments) {
                Treatment::Lease(LeaseNeed::Blocking)
            } else {
                Treatment::Share { read_only }
            }
        }
    }
}

/// Whether `XREAD` or `XREADGROUP` may block: options are read as `xreadCommand` does in Redis's
/// `t_stream.c`, where the value of one may be spelled like another. An option of a later version
/// may have any number of values: behind it nothing is certain.
fn blocks(arguments: &Arguments<'_>) -> bool {
    let mut options = arguments.iter().skip(1);
    while let Some(option) = options.next() {
        let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
        let values = if is(b"STREAMS") {
            return false;
        } else if is(b"COUNT") {
            1
        } else if is(b"GROUP") {
            2
        } else if is(b"NOACK") {
            0
        } else {
            return true;
        };
        for _ in 0..values {
            options.next();
        }
    }
    true
}

/// Whether a command may stand, as it is, between the `MULTI` and the `EXEC` of a block that is written
/// unbroken onto a shared connection: it is queued, answered once, and leaves nothing behind.
///
/// Commands that block do not block there (each waits at most as long as an empty key needs to be
/// looked at). `EXEC` and `DISCARD` end the block and are not meant.
#[must_use]
pub fn may_be_queued(treatment: &Treatment) -> bool {
    matches!(
        treatment,
        Treatment::Share { .. }
            | Treatment::Lease(LeaseNeed::Blocking)
            | Treatment::Answer(Local::Ping | Local::Echo)
    )
}
