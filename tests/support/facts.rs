//! What must hold at the end of every test: nothing was lost, and the kernel agrees.
//!
//! * opened = open + terminated, for each listener and upstream, and every termination is listed;
//! * no session is open when no client is there;
//! * a pool's connections are exactly its upstream's open ones, and those that the kernel has.

use super::process::run;
use super::proxy::{Proxy, Snapshot};
use super::wait;

/// Holds the ledger against itself and the kernel. The test's clients must be gone.
///
/// Between two looks a connection may still be closing, so the facts get [`wait::PATIENCE`] to
/// become true; opened = open + terminated must hold in every snapshot.
pub fn check(proxy: &Proxy) {
    let deadline = wait::now() + wait::PATIENCE;
    loop {
        let snapshot = proxy.snapshot();
        check_always(&snapshot);
        match settled(proxy, &snapshot) {
            Ok(()) => return,
            Err(why) => assert!(wait::now() < deadline, "{why}\n{:#}", snapshot.0),
        }
        wait::pace(std::time::Duration::from_millis(20));
    }
}

/// What holds in every consistent snapshot, also under load.
pub fn check_always(snapshot: &Snapshot) {
    for (side, what) in [("listeners", "sessions"), ("upstreams", "connections")] {
        for name in snapshot.names(side) {
            let number = |key: &str| snapshot.number(&format!("/{side}/{name}/{what}/{key}"));
            let (opened, open, terminated) =
                (number("opened"), number("open"), number("terminated"));
            assert_eq!(
                opened,
                open + terminated,
                "{side} {name}: {what}\n{:#}",
                snapshot.0
            );
            let listed = snapshot.rows(&format!("/{side}/{name}/terminations"), &[]);
            assert_eq!(
                listed, terminated,
                "{side} {name}: terminations\n{:#}",
                snapshot.0
            );
        }
    }
}

fn settled(proxy: &Proxy, snapshot: &Snapshot) -> Result<(), String> {
    for name in snapshot.names("listeners") {
        let open = snapshot.number(&format!("/listeners/{name}/sessions/open"));
        same(&format!("open sessions of {name}"), open, 0)?;
    }
    for name in snapshot.names("upstreams") {
        upstream_settled(proxy, snapshot, &name)?;
    }
    Ok(())
}

fn upstream_settled(proxy: &Proxy, snapshot: &Snapshot, name: &str) -> Result<(), String> {
    let at = format!("/upstreams/{name}");
    let mut pooled = 0;
    for index in 0..snapshot
        .0
        .pointer(&format!("{at}/endpoints"))
        .unwrap()
        .as_array()
        .unwrap()
        .len()
    {
        let state = |key: &str| snapshot.number(&format!("{at}/endpoints/{index}/{key}"));
        let address = snapshot.text(&format!("{at}/endpoints/{index}/address"));
        same(&format!("leases on {address}"), state("leased"), 0)?;
        let here = state("idle") + state("connecting") + state("shared") + state("closing");
        if !address.starts_with("unix:") {
            let held = kernel_sockets(proxy, &address);
            same(
                &format!("the kernel's sockets to {address} and the pool's"),
                held,
                here,
            )?;
        }
        pooled += here;
    }
    let open = snapshot.number(&format!("{at}/connections/open"));
    same(
        &format!("open connections of {name} and those in its pools"),
        open,
        pooled,
    )?;
    same(
        &format!("waiters of {name}"),
        snapshot.number(&format!("{at}/waiters")),
        0,
    )
}

fn same(what: &str, left: u64, right: u64) -> Result<(), String> {
    if left == right {
        Ok(())
    } else {
        Err(format!("{what}: {left} and {right}"))
    }
}

/// The sockets to `address` that belong to millpond's descriptors, as its kernel counts them.
fn kernel_sockets(proxy: &Proxy, address: &str) -> u64 {
    let pid = proxy.process().pid();
    let namespace = format!("--net=/proc/{pid}/ns/net");
    let filter = format!("dst {address}");
    let listing = run("nsenter", &[&namespace, "ss", "-tanpH", &filter]);
    let own = format!("pid={pid},");
    listing.lines().filter(|line| line.contains(&own)).count() as u64
}
