//! Configuration: from a file, options and the environment to typed values with proven limits.
//!
//! `keys` lists every key once; `read` turns what was written into one value for each; `limits`
//! holds them against each other; `build` makes the `checked` types, which the rest of the program
//! uses; `diff` says what differs between two. All problems are found in one pass.

mod address;
mod build;
pub mod checked;
mod diff;
mod error;
mod ids;
pub mod keys;
mod limits;
mod read;
mod source;
mod source_address;
mod value;
mod values;
mod wire;

pub use diff::{Changes, Named, diff, entries};
pub use error::{Errors, Problem};
pub use source::{Loaded, Source, environment, load, parse};
pub use value::Kind;
