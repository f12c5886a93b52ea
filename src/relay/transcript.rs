//! Who spoke when in a tunnel, and what that says about a boundary.
//!
//! Pure. Nothing here proves a boundary: it finds the cases in which there can't be one that another
//! client may begin at.

use crate::close::Side;
use crate::stats::reason::DiscardReason;

/// Who spoke when.
#[derive(Debug, Clone, Copy, Default)]
pub struct Transcript {
    last: Option<Side>,
    service_has_spoken: bool,
    /// The service's first word was no answer.
    service_has_greeted: bool,
    /// The client's first bytes, as many as there are of two.
    opening: [u8; 2],
    opening_len: usize,
}

impl Transcript {
    /// The client said this, not empty.
    pub fn client_said(&mut self, bytes: &[u8]) {
        self.last = Some(Side::Downstream);
        for &byte in bytes.iter().take(self.opening.len() - self.opening_len) {
            self.opening[self.opening_len] = byte;
            self.opening_len += 1;
        }
    }

    /// Something that the client had said was written to the service only now.
    pub fn service_was_told(&mut self) {
        self.last = Some(Side::Downstream);
    }

    /// The service had something to say before it was told anything, read or not yet.
    pub fn service_greets(&mut self) {
        self.service_has_greeted = true;
    }

    /// The service said something that can be an answer to the client's last word.
    pub fn service_said(&mut self) {
        self.service_has_greeted |= self.last.is_none();
        self.service_has_spoken = true;
        self.last = Some(Side::Upstream);
    }

    /// The service said something when it had part of the client's last word.
    pub fn service_interjected(&mut self) {
        self.service_has_spoken = true;
    }

    /// The service said something when it had nothing of the client's last word, or there was none.
    pub fn service_spoke_unasked(&mut self) {
        self.service_has_greeted |= !self.service_has_spoken;
        self.service_has_spoken = true;
    }

    /// Whether the service has said anything.
    pub fn service_has_spoken(&self) -> bool {
        self.service_has_spoken
    }

    /// Whether nobody has said anything.
    pub fn is_empty(&self) -> bool {
        self.last.is_none() && !self.service_has_spoken
    }

    /// Whether the service, having been spoken to, had the last word.
    pub fn is_answered(&self) -> bool {
        self.last == Some(Side::Upstream)
    }

    /// Why no other client may ever speak on this connection, whatever comes later.
    pub fn spoiled(&self) -> Option<DiscardReason> {
        // A handshake record of any version (RFC 8446 section 5.1): the keys are this client's.
        const TLS_HANDSHAKE: [u8; 2] = [22, 3];
        if self.service_has_greeted {
            Some(DiscardReason::ReuseGreeting)
        } else if self.opening == TLS_HANDSHAKE {
            Some(DiscardReason::ReuseTls)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(said: &[Option<&[u8]>]) -> Transcript {
        let mut transcript = Transcript::default();
        for said in said {
            match said {
                Some(bytes) => transcript.client_said(bytes),
                None => transcript.service_said(),
            }
        }
        transcript
    }

    #[test]
    fn the_last_word_is_the_services_only_after_it_answered() {
        assert!(of(&[]).is_empty());
        assert!(!of(&[]).is_answered());
        assert!(!of(&[Some(b"a")]).is_answered());
        assert!(of(&[Some(b"a"), None]).is_answered());
        assert!(!of(&[Some(b"a"), None, Some(b"b")]).is_answered());
        let mut transcript = of(&[Some(b"a"), None]);
        transcript.service_was_told();
        assert!(!transcript.is_answered());
    }

    #[test]
    fn a_greeting_and_a_handshake_spoil_a_connection_for_ever() {
        let spoiled = |said| of(said).spoiled();
        assert_eq!(spoiled(&[Some(b"a"), None]), None);
        assert_eq!(
            spoiled(&[None, Some(b"a"), None]),
            Some(DiscardReason::ReuseGreeting)
        );
        let mut at_once = of(&[Some(b"a")]);
        at_once.service_spoke_unasked();
        at_once.service_said();
        assert_eq!(at_once.spoiled(), Some(DiscardReason::ReuseGreeting));
        let mut asked = of(&[Some(b"a"), None, Some(b"b")]);
        asked.service_spoke_unasked();
        assert_eq!(asked.spoiled(), None);
        assert_eq!(
            spoiled(&[Some(b"\x16\x03\x01\x00"), None]),
            Some(DiscardReason::ReuseTls)
        );
        assert_eq!(
            spoiled(&[Some(b"\x16"), Some(b"\x03")]),
            Some(DiscardReason::ReuseTls)
        );
        assert_eq!(spoiled(&[Some(b"a\x16\x03")]), None);
        assert_eq!(spoiled(&[Some(b"\x16\x04")]), None);
    }
}
