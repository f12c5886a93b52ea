//! Asks the kernel, and calls the ledgers' rolls. Blocks.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use super::plan::Plan;
use crate::census::count::{Count, Held, Leg};
use crate::census::descriptors::own_sockets;
use crate::census::leaks::OpenEntry;
use crate::census::ports::Route;
use crate::census::take::take;
use crate::sys::clock;

/// What was seen.
pub(super) struct Observed {
    pub(super) count: Count,
    /// Each ledger's open entries.
    pub(super) rolls: Vec<Vec<OpenEntry>>,
    /// Sockets of this process on our side of a leg that no ledger has an entry for.
    pub(super) unknown: Vec<Held>,
    /// The cookies of others' sockets on our side of a leg.
    pub(super) foreign: HashSet<u64>,
    /// What it took of this thread's.
    pub(super) cpu_time: Duration,
}

/// Counts what `plan` says, and gives it back. `foreign` are the sockets that were found to be somebody
/// else's before.
pub(super) fn observe(plan: Plan, foreign: &HashSet<u64>) -> (Plan, io::Result<Observed>) {
    let observed = look(&plan, foreign);
    (plan, observed)
}

fn look(plan: &Plan, foreign: &HashSet<u64>) -> io::Result<Observed> {
    let began = clock::thread_cpu_time()?;
    let call_rolls = || -> Vec<_> { plan.books.iter().map(|it| it.call_roll()).collect() };
    let mut rolls = call_rolls();
    let count = count(plan)?;
    let mut strangers = not_in(&rolls, &count.held);
    if strangers.iter().any(|it| !foreign.contains(&it.cookie)) {
        // Some may have been opened since the roll was called.
        rolls = call_rolls();
        strangers = not_in(&rolls, &strangers);
    }
    let (old, new): (Vec<_>, Vec<_>) = strangers
        .into_iter()
        .partition(|it| foreign.contains(&it.cookie));
    // A walk through all descriptors: only for sockets that were not seen before.
    let own = match new.is_empty() {
        true => HashSet::new(),
        // Where /proc can't be read, nobody's socket is taken for ours.
        false => own_sockets().unwrap_or_default(),
    };
    let (unknown, new): (Vec<_>, Vec<_>) = new.into_iter().partition(|it| own.contains(&it.inode));
    Ok(Observed {
        count,
        rolls,
        unknown,
        foreign: old.iter().chain(&new).map(|it| it.cookie).collect(),
        cpu_time: clock::thread_cpu_time()?.saturating_sub(began),
    })
}

fn count(plan: &Plan) -> io::Result<Count> {
    let legs: Vec<Leg> = plan.legs.iter().map(|it| it.leg.clone()).collect();
    let routes: Vec<Route> = plan.routes.iter().map(|it| it.route.clone()).collect();
    take(&legs, &routes)
}

/// The sockets that are in no roll, each once.
fn not_in(rolls: &[Vec<OpenEntry>], held: &[Held]) -> Vec<Held> {
    let mut seen: HashSet<u64> = rolls.iter().flatten().filter_map(|it| it.cookie).collect();
    let strangers = held.iter().filter(|it| seen.insert(it.cookie));
    strangers.copied().collect()
}
