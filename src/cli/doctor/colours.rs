//! The colours of the doctor's text: for terminals only; without them the text is the same.

use std::env;
use std::io::{self, IsTerminal};

/// Whether there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colours {
    On,
    Off,
}

/// What a colour says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Paint {
    Title,
    Good,
    Notice,
    Bad,
    Sent,
    Received,
    Faint,
}

impl Colours {
    /// For standard output: unless `NO_COLOR` says anything (<https://no-color.org>).
    pub(super) fn of_stdout() -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
        match io::stdout().is_terminal() && !refused {
            true => Self::On,
            false => Self::Off,
        }
    }

    /// Select Graphic Rendition (ECMA-48 §8.3.117).
    pub(super) fn paint(self, paint: Paint, text: &str) -> String {
        let code = match (self, paint) {
            (Self::Off, _) => return text.to_owned(),
            (Self::On, Paint::Title) => "1",
            (Self::On, Paint::Faint) => "2",
            (Self::On, Paint::Good) => "32",
            (Self::On, Paint::Notice | Paint::Sent) => "33",
            (Self::On, Paint::Received) => "36",
            (Self::On, Paint::Bad) => "1;31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}
