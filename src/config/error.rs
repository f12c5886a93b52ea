//! What is wrong with a configuration, all of it at once.
//!
//! Each problem is the operator's to mend; none goes away by trying again.

use std::fmt;

/// Every problem that was found, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors(pub Vec<Problem>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// One problem. Displays as one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file is not there or not readable.
    #[error("{path}: can't be read: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The text is not TOML.
    #[error("{place}: {reason}")]
    Syntax {
        /// The file, if there is one.
        place: String,
        /// What the parser said, with line and column.
        reason: String,
    },
    /// There is no such key.
    #[error("{key}: there is no such key; {hint}")]
    Unknown {
        /// The key as it was written.
        key: String,
        /// The nearest known key, or all that could stand there.
        hint: String,
    },
    /// The value can't be used.
    #[error("{key} = {value}: {reason}; allowed: {allowed}")]
    Value {
        /// The full key.
        key: String,
        /// The value as it was written.
        value: String,
        /// What is wrong with it.
        reason: String,
        /// What could stand there.
        allowed: String,
    },
    /// A key that must be written is not.
    #[error("{key}: must be written; allowed: {allowed}")]
    Missing {
        /// The full key.
        key: String,
        /// What could stand there.
        allowed: String,
    },
    /// Nothing would listen.
    #[error("listener: there is none; allowed: at least one [listener.NAME]")]
    NoListener,
}
