//! Replies, from the bytes that were read to the mailboxes of whoever is owed them.
//!
//! Invariant: a byte of a reply goes to the mailbox that is at the front, or nowhere.

use std::sync::Arc;

use super::link::{Kind, Owed};
use super::mailbox::Mailbox;
use crate::protocol::replies::{Language, Replies, ReplyThen, ReplyViolation};
use crate::relay::buffer::Buffer;

/// What was handed out in one go.
pub(super) struct Moved<L: Language> {
    pub(super) bytes: usize,
    /// What lies in the mailbox now.
    pub(super) waiting_bytes: usize,
    pub(super) mailbox: Arc<Mailbox<Kind<L>>>,
}

/// Hands out replies to whoever is at the front.
pub(super) fn hand_out<L: Language>(
    front: &mut Owed<L>,
    replies: &mut L::Replies,
    inbound: &mut Buffer,
    is_midway: &mut bool,
) -> Result<Moved<L>, ReplyViolation> {
    let bytes = inbound.filled();
    let (mut taken, mut shown_from, mut ended) = (0, 0, 0);
    let mut waiting_bytes = 0;
    let mut violation = None;
    while front.replies > 0 && taken < bytes.len() {
        let frame = match replies.frame(front.kind, &bytes[taken..]) {
            Ok(frame) => frame,
            Err(found) => {
                violation = Some(found);
                break;
            }
        };
        if frame.taken == 0 && frame.then == ReplyThen::More {
            break;
        }
        if !frame.shown {
            let run = &bytes[shown_from..taken];
            waiting_bytes = front.mailbox.put(run, std::mem::take(&mut ended), false);
            shown_from = taken + frame.taken;
        }
        taken += frame.taken;
        *is_midway = frame.then == ReplyThen::More;
        if frame.then == ReplyThen::End {
            front.replies -= 1;
            front.answered += 1;
            ended += 1;
        }
    }
    let run = &bytes[shown_from..taken];
    if !run.is_empty() || ended > 0 {
        waiting_bytes = front.mailbox.put(run, ended, *is_midway);
    }
    let mailbox = Arc::clone(&front.mailbox);
    inbound.consume(taken);
    match violation {
        Some(violation) => Err(violation),
        None => Ok(Moved {
            bytes: taken,
            waiting_bytes,
            mailbox,
        }),
    }
}

/// Passes on what a service says unasked to the one session that it is pinned to.
pub(super) fn pass_on<L: Language>(
    mailbox: Arc<Mailbox<Kind<L>>>,
    replies: &mut L::Replies,
    inbound: &mut Buffer,
) -> Result<Moved<L>, ReplyViolation> {
    let bytes = inbound.filled();
    let (mut taken, mut is_midway) = (0, false);
    while taken < bytes.len() {
        let frame = replies.frame_unasked(&bytes[taken..])?;
        if frame.taken == 0 && frame.then == ReplyThen::More {
            break;
        }
        taken += frame.taken;
        is_midway = frame.then == ReplyThen::More;
    }
    let waiting_bytes = mailbox.put(&bytes[..taken], 0, is_midway);
    inbound.consume(taken);
    Ok(Moved {
        bytes: taken,
        waiting_bytes,
        mailbox,
    })
}
