//! Where the replies to one session arrive, whichever connection they come over.
//!
//! The owner of a connection puts bytes in, the session takes them out; neither waits for the other
//! under the lock. Not here: whose turn it is (see `owner`), and writing to the client (see `session`).
//!
//! Invariant: replies lie here in the order of their requests, and what came to nothing behind them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use futures_util::task::AtomicWaker;

use crate::stats::reason::RetryReason;

/// Where the replies to one session arrive. `K`: what a request says about its reply.
#[derive(Debug)]
pub struct Mailbox<K> {
    post: Mutex<Post<K>>,
    session: AtomicWaker,
}

#[derive(Debug)]
struct Post<K> {
    bytes: Vec<u8>,
    replies: usize,
    is_midway: bool,
    returned: VecDeque<Returned<K>>,
    standing: Standing,
    /// An owner that waits until the session has taken what is here.
    owner: Option<Waker>,
    /// There is room again on the connection that had none.
    has_room: bool,
    /// The connection that was pinned to the session and ended, by its number.
    lost_pin: Option<u64>,
}

/// How the session stands to its mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It takes what comes.
    Taking,
    /// It has left: what comes for it is dropped.
    Left,
    /// It took nothing for so long that others would have had to wait: what comes for it is dropped.
    CutOff,
}

/// Requests that were not answered, in their order.
#[derive(Debug, PartialEq, Eq)]
pub enum Returned<K> {
    /// They may be sent elsewhere, for this reason.
    Unsent(Batch<K>, RetryReason),
    /// So many were written: nobody knows what became of them.
    Lost(K, usize, Lost),
    /// So many too, of the first of which the reply had begun.
    Cut(usize),
}

/// Why there is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The service ended the connection.
    Died,
    /// It said nothing for `response_timeout`.
    Silent,
}

/// Requests of one session in a row, whose replies are alike.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch<K> {
    /// The whole requests.
    pub requests: Vec<u8>,
    /// What is known of them.
    pub run: Run<K>,
}

/// What is known of requests in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run<K> {
    /// What they say about their replies.
    pub kind: K,
    /// How many replies they have.
    pub replies: usize,
    /// How they belong together, and what they may do.
    pub nature: Nature,
    /// How often they were given back before.
    pub tries: u8,
}

impl<K> Run<K> {
    /// One request that has a reply.
    pub fn one(kind: K, nature: Nature) -> Self {
        Self::of(kind, 1, nature)
    }

    /// So many requests that have a reply each.
    pub fn of(kind: K, replies: usize, nature: Nature) -> Self {
        Self {
            kind,
            replies,
            nature,
            tries: 0,
        }
    }
}

/// What is known of requests that are handed over together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// Each stands for itself.
    Each,
    /// Each stands for itself and changes nothing, as the protocol says: it may be executed twice.
    ReadOnly,
    /// They only make sense together.
    Block,
    /// It has no reply: it is done once it is written.
    Unanswered,
}

impl Nature {
    /// Of requests that each stand for themselves.
    pub fn of(read_only: bool) -> Self {
        match read_only {
            true => Self::ReadOnly,
            false => Self::Each,
        }
    }
}

/// What a session takes out of its mailbox.
#[derive(Debug)]
pub struct Taken<K> {
    /// How many replies ended in what was taken.
    pub replies: usize,
    /// Behind what was taken the reply goes on.
    pub is_midway: bool,
    /// What came to nothing, behind all replies.
    pub returned: VecDeque<Returned<K>>,
    /// Whether more is to be expected.
    pub standing: Standing,
    /// There is room again on the connection that had none.
    pub has_room: bool,
    /// The connection that was pinned to the session and ended, by its number.
    pub lost_pin: Option<u64>,
}

impl<K> Default for Mailbox<K> {
    fn default() -> Self {
        Self {
            post: Mutex::new(Post {
                bytes: Vec::new(),
                replies: 0,
                is_midway: false,
                returned: VecDeque::new(),
                standing: Standing::Taking,
                owner: None,
                has_room: false,
                lost_pin: None,
            }),
            session: AtomicWaker::new(),
        }
    }
}

impl<K> Mailbox<K> {
    /// Puts in bytes of a reply, in which so many end. How many bytes lie here now; `None` where nobody takes
    /// them.
    pub(super) fn put(&self, bytes: &[u8], replies: usize, is_midway: bool) -> Option<usize> {
        let mut post = self.lock();
        post.replies += replies;
        post.is_midway = is_midway;
        let is_taken = post.standing == Standing::Taking;
        if is_taken {
            post.bytes.extend_from_slice(bytes);
        }
        let waiting_bytes = post.bytes.len();
        drop(post);
        self.session.wake();
        is_taken.then_some(waiting_bytes)
    }

    /// Says that a request without a reply is done.
    pub(super) fn tell_done(&self) {
        self.lock().replies += 1;
        self.session.wake();
    }

    /// Has `owner` told when the session takes what is here. False where nothing is: it need not wait.
    pub(super) fn wait_for_session(&self, owner: &Waker, bytes_max: usize) -> bool {
        let mut post = self.lock();
        let is_full = post.standing == Standing::Taking && post.bytes.len() > bytes_max;
        post.owner = is_full.then(|| owner.clone());
        is_full
    }

    /// Whether nobody takes anything out of it any more.
    pub(super) fn is_left(&self) -> bool {
        self.lock().standing == Standing::Left
    }

    /// Gives up a session that takes nothing.
    pub(super) fn cut_off(&self) {
        let mut post = self.lock();
        if post.standing == Standing::Taking {
            post.standing = Standing::CutOff;
            post.bytes = Vec::new();
        }
        drop(post);
        self.session.wake();
    }

    /// Gives a request back.
    pub(super) fn give_back(&self, returned: Returned<K>) {
        let mut post = self.lock();
        if post.standing == Standing::Taking {
            post.returned.push_back(returned);
        }
        drop(post);
        self.session.wake();
    }

    /// Says that there is room again on the connection that had none.
    pub(super) fn tell_room(&self) {
        self.lock().has_room = true;
        self.session.wake();
    }

    /// Says that the connection of this number, which was pinned to the session, has ended.
    pub(super) fn tell_lost_pin(&self, link: u64) {
        self.lock().lost_pin = Some(link);
        self.session.wake();
    }

    /// Has the session's task woken when something comes.
    pub fn watch(&self, context: &Context<'_>) {
        self.session.register(context.waker());
    }

    /// Takes all that is here; the bytes into `bytes`, which is empty.
    pub fn take(&self, bytes: &mut Vec<u8>) -> Taken<K> {
        debug_assert!(
            bytes.is_empty(),
            "what was taken before would come to lie behind"
        );
        let mut post = self.lock();
        std::mem::swap(&mut post.bytes, bytes);
        let owner = post.owner.take();
        let taken = Taken {
            replies: std::mem::take(&mut post.replies),
            is_midway: post.is_midway,
            returned: std::mem::take(&mut post.returned),
            standing: post.standing,
            has_room: std::mem::take(&mut post.has_room),
            lost_pin: post.lost_pin,
        };
        drop(post);
        if let Some(owner) = owner {
            owner.wake();
        }
        taken
    }

    /// The session leaves: what comes for it is dropped.
    pub fn leave(&self) {
        let mut post = self.lock();
        post.standing = Standing::Left;
        post.bytes = Vec::new();
        post.returned.clear();
        let owner = post.owner.take();
        drop(post);
        if let Some(owner) = owner {
            owner.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Post<K>> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn take(mailbox: &Mailbox<u8>) -> (Vec<u8>, Taken<u8>) {
        let mut bytes = Vec::new();
        let taken = mailbox.take(&mut bytes);
        (bytes, taken)
    }

    #[test]
    fn what_is_put_in_is_taken_once_and_in_order() {
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.put(b"+OK\r\n$3", 1, true), Some(7));
        mailbox.put(b"\r\nabc\r\n", 1, false);
        mailbox.give_back(Returned::Lost(7, 1, Lost::Died));
        let (bytes, taken) = take(&mailbox);
        assert_eq!(bytes, b"+OK\r\n$3\r\nabc\r\n");
        assert_eq!((taken.replies, taken.is_midway), (2, false));
        assert_eq!(taken.returned, [Returned::Lost(7, 1, Lost::Died)]);
        let (bytes, taken) = take(&mailbox);
        assert!(bytes.is_empty() && taken.replies == 0 && taken.returned.is_empty());
    }

    #[test]
    fn nothing_is_kept_for_a_session_that_left_or_was_cut_off() {
        for end in [Mailbox::leave, Mailbox::cut_off] {
            let mailbox = Mailbox::default();
            mailbox.put(b"before", 1, false);
            end(&mailbox);
            assert_eq!(mailbox.put(b"after", 1, false), None);
            mailbox.give_back(Returned::Lost(1, 1, Lost::Died));
            let (bytes, taken) = take(&mailbox);
            assert!(bytes.is_empty() && taken.returned.is_empty());
            assert_ne!(taken.standing, Standing::Taking);
            assert!(
                !mailbox.wait_for_session(Waker::noop(), 0),
                "nobody takes anything"
            );
        }
    }
}
