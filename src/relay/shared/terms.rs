//! What holds for every connection of an upstream that has a task of its own.

use std::sync::Arc;

use super::timing::Timing;
use crate::protocol::replies::Language;
use crate::upstream::{SharingRules, Upstream};

/// What holds for every such connection.
#[derive(Debug)]
pub(super) struct Terms<L: Language> {
    pub(super) language: L,
    pub(super) timing: Timing,
    pub(super) upstream: Arc<Upstream>,
}

impl<L: Language> Terms<L> {
    pub(super) fn new(language: L, upstream: Arc<Upstream>, rules: &SharingRules) -> Self {
        let timing = Timing::default();
        timing.apply(rules);
        Self {
            language,
            timing,
            upstream,
        }
    }
}
