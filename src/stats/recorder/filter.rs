//! Which records somebody asks for.

use std::sync::Arc;

use super::{Record, RecordId};
use crate::close::{Phase, Side};
use crate::stats::reason::Reason;

/// Which records are asked for. An absent field asks for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this listener's sessions.
    pub listener: Option<String>,
    /// Of this upstream.
    pub upstream: Option<String>,
    /// On this leg.
    pub side: Option<Side>,
    /// In this phase.
    pub phase: Option<Phase>,
    /// `sent`, `received` or `none`.
    pub direction: Option<String>,
    /// For this cause, as in the metric; or for this reason of the discard.
    pub cause: Option<String>,
    /// Of this session.
    pub session: Option<u64>,
    /// Younger than this one.
    pub after: Option<RecordId>,
}

impl Filter {
    pub(super) fn admits(&self, record: &Record) -> bool {
        let story = &record.story;
        let is = |asked: &Option<String>, name: &Option<Arc<str>>| {
            asked
                .as_deref()
                .is_none_or(|asked| name.as_deref() == Some(asked))
        };
        let discard = story.discard.map(Reason::label);
        let direction = record
            .ending
            .reset
            .map_or("none", |it| it.reset.direction());
        is(&self.listener, &story.listener)
            && is(&self.upstream, &story.upstream)
            && self.side.is_none_or(|side| side == story.side)
            && self.phase.is_none_or(|phase| phase == record.phase())
            && self.direction.as_deref().is_none_or(|it| it == direction)
            && self
                .cause
                .as_deref()
                .is_none_or(|cause| cause == record.cause() || Some(cause) == discard)
            && self.session.is_none_or(|it| story.session == Some(it))
            && self.after.is_none_or(|id| record.id > id)
    }

    /// Asks for only those whose `name` is `value`, besides what was asked before. Fails with a sentence
    /// where there is no such name, or no such value of it.
    pub fn narrow(&mut self, name: &str, value: &str) -> Result<(), String> {
        let text = || Some(value.to_owned());
        match name {
            "listener" => self.listener = text(),
            "upstream" => self.upstream = text(),
            "cause" => self.cause = text(),
            "side" => self.side = Some(one_of(name, value, &Side::ALL, Side::label)?),
            "phase" => self.phase = Some(one_of(name, value, &Phase::ALL, Phase::label)?),
            "direction" => {
                one_of(name, value, &["sent", "received", "none"], |it| it)?;
                self.direction = text();
            }
            "session" => self.session = Some(number(name, value)?),
            "after" => self.after = Some(RecordId(number(name, value)?)),
            _ => {
                let names = Self::NAMES.join(", ");
                return Err(format!(
                    "{name:?} is not asked for here; what may be: limit, {names}"
                ));
            }
        }
        Ok(())
    }

    const NAMES: &[&str] = &[
        "listener",
        "upstream",
        "side",
        "phase",
        "direction",
        "cause",
        "session",
        "after",
    ];
}

fn number(name: &str, value: &str) -> Result<u64, String> {
    value
        .parse()
        .map_err(|_| format!("{name} is a number, not {value:?}"))
}

fn one_of<T: Copy>(
    name: &str,
    value: &str,
    known: &[T],
    label: impl Fn(T) -> &'static str,
) -> Result<T, String> {
    let found = known.iter().find(|&&it| label(it) == value);
    found.copied().ok_or_else(|| {
        let labels: Vec<_> = known.iter().map(|&it| label(it)).collect();
        format!("{name} is one of {}, not {value:?}", labels.join(", "))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn records_are_asked_for_by_every_name() {
        let mut filter = Filter::default();
        for (name, value) in [
            ("listener", "web"),
            ("upstream", "app"),
            ("side", "upstream"),
            ("phase", "idle"),
            ("direction", "received"),
            ("cause", "peer"),
            ("session", "7"),
            ("after", "9"),
        ] {
            assert!(Filter::NAMES.contains(&name));
            filter.narrow(name, value).unwrap();
        }
        assert_eq!(
            filter,
            Filter {
                listener: Some("web".to_owned()),
                upstream: Some("app".to_owned()),
                side: Some(Side::Upstream),
                phase: Some(Phase::Idle),
                direction: Some("received".to_owned()),
                cause: Some("peer".to_owned()),
                session: Some(7),
                after: Some(RecordId(9)),
            }
        );
    }

    #[test]
    fn what_cannot_be_asked_for_is_said() {
        for (name, value, word) in [
            ("phase", "sleep", "idle"),
            ("side", "left", "downstream"),
            ("direction", "up", "sent, received, none"),
            ("session", "x", "number"),
            ("colour", "red", "what may be"),
        ] {
            let sentence = Filter::default().narrow(name, value).unwrap_err();
            assert!(sentence.contains(word), "{name}={value}: {sentence}");
        }
    }
}
