//! Asks the kernel, and calls the ledgers' rolls. Blocks.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use super::plan::Plan;
use crate::census::count::{Count, Leg, filter};
use crate::census::descriptors::own_sockets;
use crate::census::diag::dump;
use crate::census::filter::Filter;
use crate::census::leaks::OpenEntry;
use crate::census::ports::Route;
use crate::census::socket::{State, States};
use crate::sys::clock;

/// What was seen.
pub(super) struct Observed {
    pub(super) count: Count,
    /// Each leg's open entries.
    pub(super) rolls: Vec<Vec<OpenEntry>>,
    /// The inodes of this process's sockets; empty where no leg has a socket that its ledger does not know.
    own: HashSet<u32>,
    /// What it took of this thread's.
    pub(super) cpu_time: Duration,
}

/// Counts what `plan` says, and gives it back.
pub(super) fn observe(plan: Plan) -> (Plan, io::Result<Observed>) {
    let observed = count(&plan);
    (plan, observed)
}

fn count(plan: &Plan) -> io::Result<Observed> {
    let began = clock::thread_cpu_time()?;
    let legs: Vec<Leg> = plan.legs.iter().map(|it| it.leg.clone()).collect();
    let routes: Vec<Route> = plan.routes.iter().map(|it| it.route.clone()).collect();
    let mut count = Count::new(&legs, &routes);
    let rolls: Vec<_> = plan.legs.iter().map(|leg| leg.roll()).collect();
    if let Some(filter) = filter(&legs, &routes) {
        dump(States::CONNECTED, &filter, &mut |socket| {
            count.add(socket, &routes);
        })?;
    }
    let mut listening = HashSet::new();
    if !routes.is_empty() {
        dump(
            States::of(&[State::Listen]),
            &Filter::all(),
            &mut |socket| {
                listening.insert(socket.local.port());
            },
        )?;
    }
    for port in listening {
        count.add_listening(port, &routes);
    }
    let own = match has_unknown(&count, &rolls) {
        true => own_sockets()?,
        false => HashSet::new(),
    };
    Ok(Observed {
        count,
        rolls,
        own,
        cpu_time: clock::thread_cpu_time()?.saturating_sub(began),
    })
}

/// Whether the kernel lists a socket on a leg of which that leg's ledger has no entry. Mostly another
/// program's.
fn has_unknown(count: &Count, rolls: &[Vec<OpenEntry>]) -> bool {
    let known: HashSet<u64> = rolls.iter().flatten().filter_map(|it| it.cookie).collect();
    count.held.iter().any(|held| !known.contains(&held.cookie))
}

impl Observed {
    /// The sockets of this process that the kernel lists on a leg; where all are known to its ledger, none.
    pub(super) fn own_cookies(&self, leg: usize) -> Vec<u64> {
        let held = self.count.held.iter().filter(|held| held.leg == leg);
        let own = held.filter(|held| self.own.contains(&held.inode));
        own.map(|held| held.cookie).collect()
    }
}
