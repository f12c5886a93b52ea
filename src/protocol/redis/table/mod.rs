//! The rows of all commands, and how the row of a name is found: a hash over the name in upper case,
//! computed with the program, then one comparison.
//!
//! Not here: arguments, but for the subcommand's name.
//!
//! Invariant: names are found in any case, and a subcommand only behind its command.

mod commands;
mod row;
mod subcommands;

use super::command::Row;

pub(super) use commands::COMMANDS;
pub(super) use subcommands::SUBCOMMANDS;

/// The row of a command.
#[inline]
pub(super) fn command(name: &[u8]) -> Option<&'static Row> {
    COMMANDS_INDEX.find(hash(HASH_SEED, name), |row| row.eq_ignore_ascii_case(name))
}

/// The row of a subcommand.
pub(super) fn subcommand(name: &[u8], subcommand: &[u8]) -> Option<&'static Row> {
    let both = hash(hash(hash(HASH_SEED, name), b" "), subcommand);
    SUBCOMMANDS_INDEX.find(both, |row| {
        let parts = row.split_at_checked(name.len());
        parts.is_some_and(|(first, rest)| {
            first.eq_ignore_ascii_case(name)
                && rest
                    .strip_prefix(b" ")
                    .is_some_and(|rest| rest.eq_ignore_ascii_case(subcommand))
        })
    })
}

/// Places of rows by the hash of their names; where two meet, the later one is in the next place.
struct Index {
    rows: &'static [Row],
    /// A row's number and 1; 0 where there is none.
    places: [u16; PLACES],
}

impl Index {
    const fn new(rows: &'static [Row]) -> Self {
        let mut places = [0; PLACES];
        let mut number = 0;
        while number < rows.len() {
            let mut place = place(hash(HASH_SEED, rows[number].name.as_bytes()));
            while places[place] != 0 {
                place = (place + 1) % PLACES;
            }
            number += 1;
            places[place] = number as u16;
        }
        Self { rows, places }
    }

    #[inline]
    fn find(&self, hash: u32, is: impl Fn(&[u8]) -> bool) -> Option<&'static Row> {
        let mut place = place(hash);
        loop {
            let number = usize::from(self.places[place]).checked_sub(1)?;
            let row = &self.rows[number];
            if is(row.name.as_bytes()) {
                return Some(row);
            }
            place = (place + 1) % PLACES;
        }
    }
}

static COMMANDS_INDEX: Index = Index::new(COMMANDS);
static SUBCOMMANDS_INDEX: Index = Index::new(SUBCOMMANDS);

/// Over three times as many as rows: most names are in their first place.
const PLACES: usize = 1024;

/// FNV-1a of 32 bits (its offset basis and prime), over the name in upper case.
const fn hash(seed: u32, name: &[u8]) -> u32 {
    let mut hash = seed;
    let mut at = 0;
    while at < name.len() && at < NAME_BYTES_MAX {
        hash = (hash ^ name[at].to_ascii_uppercase() as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash
}

const HASH_SEED: u32 = 0x811c_9dc5;

/// Of a longer name, which is in no row, the first bytes are enough.
const NAME_BYTES_MAX: usize = 32;

const fn place(hash: u32) -> usize {
    (hash ^ (hash >> 16)) as usize % PLACES
}
