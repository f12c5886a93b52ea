//! What a connection that several clients share has to know of RESP: who is served, what the service is
//! told first, and how a client is told that nothing came of its command.
//!
//! Invariant: equal identities see the same keys with the same rights, in the same form.

use super::reply::{ReplyFramer, Shape};
use super::request::{Limits, RequestFramer, Scan};
use super::short::{Short, inspect};
use crate::protocol::replies::{Language, Setup, Wordless};

/// The language of Redis and Valkey.
#[derive(Debug, Clone, Copy)]
pub struct Redis;

/// Whose connection it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Who has authenticated, and how; `None`: nobody.
    pub user: Option<Credentials>,
    /// The database that was selected.
    pub database: u32,
    /// The form of the replies.
    pub version: Version,
}

/// A name and its password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The user; `None`: the default one, as `AUTH` without a name means it.
    pub name: Option<Vec<u8>>,
    /// The password.
    pub password: Vec<u8>,
}

/// The version of RESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// What every connection begins with.
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            user: None,
            database: 0,
            version: Version::Resp2,
        }
    }
}

/// A password is shown to nobody.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Language for Redis {
    type Replies = ReplyFramer;
    type Identity = Identity;

    /// Since Redis 6.2.
    const RESET: Option<(&'static [u8], &'static [u8])> =
        Some((b"*1\r\n$5\r\nRESET\r\n", b"+RESET\r\n"));

    fn replies(&self) -> ReplyFramer {
        ReplyFramer::new()
    }

    fn setup(identity: &Identity) -> Setup {
        let mut setup = Setup::default();
        match (&identity.user, identity.version) {
            (None, Version::Resp2) => {}
            (None, Version::Resp3) => add(&mut setup, &[b"HELLO", b"3"]),
            (Some(Credentials { name, password }), Version::Resp3) => {
                let name = name.as_deref().unwrap_or(b"default");
                add(&mut setup, &[b"HELLO", b"3", b"AUTH", name, password]);
            }
            (Some(Credentials { name, password }), Version::Resp2) => match name {
                Some(name) => add(&mut setup, &[b"AUTH", name, password]),
                None => add(&mut setup, &[b"AUTH", password]),
            },
        }
        if identity.database != 0 {
            let database = identity.database.to_string();
            add(&mut setup, &[b"SELECT", database.as_bytes()]);
        }
        setup
    }

    fn refusal(reply: &[u8]) -> Option<&[u8]> {
        matches!(inspect(reply), Short::Error(_)).then_some(reply)
    }

    fn write_refusal(
        &self,
        shape: Shape,
        sentence: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), Wordless> {
        if shape == Shape::Shown {
            out.extend_from_slice(b"-ERR millpond: ");
            out.extend_from_slice(sentence.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    fn first_request(requests: &[u8]) -> usize {
        match RequestFramer::new(Limits::default()).scan(requests) {
            Ok(Scan::Whole { bytes } | Scan::Blank { bytes }) => bytes,
            Ok(Scan::More) | Err(_) => requests.len(),
        }
    }
}

fn add(setup: &mut Setup, arguments: &[&[u8]]) {
    write_command(arguments, &mut setup.requests);
    setup.count += 1;
}

/// Appends a command.
pub fn write_command(arguments: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        write_bulk(argument, out);
    }
}

/// Appends a string.
pub fn write_bulk(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_told_who_is_served_before_anything_else() {
        let identity = |name: Option<&str>, database, version| Identity {
            user: name.map(|name| Credentials {
                name: (!name.is_empty()).then(|| name.as_bytes().to_vec()),
                password: b"secret".to_vec(),
            }),
            database,
            version,
        };
        let rows: [(Identity, usize, &[u8]); 4] = [
            (Identity::default(), 0, b""),
            (
                identity(Some("ann"), 0, Version::Resp2),
                1,
                b"*3\r\n$4\r\nAUTH\r\n$3\r\nann\r\n$6\r\nsecret\r\n",
            ),
            (
                identity(Some(""), 3, Version::Resp2),
                2,
                b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n",
            ),
            (
                identity(Some(""), 0, Version::Resp3),
                1,
                b"*5\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$7\r\ndefault\r\n$6\r\nsecret\r\n",
            ),
        ];
        for (identity, count, requests) in rows {
            let setup = Redis::setup(&identity);
            assert_eq!(setup.count, count, "{identity:?}");
            assert_eq!(
                String::from_utf8_lossy(&setup.requests),
                String::from_utf8_lossy(requests)
            );
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let credentials = Credentials {
            name: Some(b"ann".to_vec()),
            password: b"secret".to_vec(),
        };
        assert!(
            !format!("{credentials:?}").contains("115"),
            "as a list of bytes"
        );
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
