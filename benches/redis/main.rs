//! What sharing connections to Redis costs and what it saves, in millpond and in twemproxy beside it.
//!
//! Both stand in front of the same Redis, on loopback; `straight` is nothing between. The clients are
//! redis-benchmark's. Clients, proxy and Redis share two cores, so that CPU time which one saves is
//! there for the others; rounds alternate, in an order that turns. A proxy that gathers what many
//! clients ask can save Redis more than it costs itself: so Redis's CPU time for a command is here too.
//!
//! Not here: claims. The program prints what it measured and on which host.
//!
//! ```text
//! cargo bench --bench redis -- --rounds 7 --seconds 3
//! cargo bench --bench redis -- --only clients_500,straight,millpond /tmp/millpond-new /tmp/millpond-old
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod load;
mod programs;
mod report;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use clap::Parser;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use load::{LoadError, Workload};
use programs::{Program, Proxy, Service};
use report::{Measurement, Report};
use support::process::{ProgramError, Workplace};

/// Compares how many commands a second pass, and the CPU time that the proxy and Redis spend on one.
#[derive(Parser)]
struct Arguments {
    /// Builds of millpond to measure; without one, the bench's own.
    binaries: Vec<String>,
    /// Rounds for each proxy and workload; the table shows medians over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of load in one round, about.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Cores for everything together.
    #[arg(long, default_value_t = 2)]
    cores: usize,
    /// Only these, separated by commas: clients_50, clients_500, pipelines, churn; straight, twemproxy,
    /// millpond, millpond_all_cores.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("redis: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why there is no complete table.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error("--only does not know {0:?}; it knows {1}")]
    UnknownName(String, String),
    #[error("the cores can't be chosen: {0}")]
    Cores(#[from] nix::Error),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Load(#[from] LoadError),
}

fn run(mut arguments: Arguments) -> Result<(), BenchError> {
    if arguments.binaries.is_empty() {
        arguments
            .binaries
            .push(env!("CARGO_BIN_EXE_millpond").to_owned());
    }
    let (workloads, proxies) = selection(&arguments)?;
    share_cores(arguments.cores)?;
    let workplace = Workplace::new()?;
    let service = Service::start(&workplace)?;
    load::fill(service.address())?;
    let mut report = Report::new(arguments.rounds, arguments.seconds, arguments.cores);
    report.print_host();
    let mut programs = Vec::new();
    for proxy in proxies {
        match Program::start(&proxy, &workplace, service.address())? {
            Ok(program) => programs.push(program),
            Err(said) => println!("{}: left out, {said}", proxy.label()),
        }
    }

    for &workload in &workloads {
        let mut requests = Vec::new();
        for program in &programs {
            // Warms it up, and says how many requests fill a round.
            let load = load::run(workload, program.address(), workload.requests_of_trial())?;
            let count = load.requests_per_second * arguments.seconds as f64;
            requests.push((count as u64).max(workload.requests_of_trial()));
        }
        for round in 0..arguments.rounds {
            let count = programs.len();
            for place in 0..count {
                let place = (place + round as usize) % count;
                let program = &programs[place];
                report.add(measure(workload, program, &service, requests[place])?);
            }
        }
        report.print(workload, &programs);
    }
    Ok(())
}

/// Lets this process and its children run on the first cores only.
fn share_cores(cores: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    for core in 0..cores {
        set.set(core)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
}

fn measure(
    workload: Workload,
    program: &Program,
    service: &Service,
    requests: u64,
) -> Result<Measurement, BenchError> {
    let connects = service.connections_received()?;
    let proxy_before = program.cpu_time()?;
    let service_before = service.cpu_time()?;
    let load = load::run(workload, program.address(), requests)?;
    Ok(Measurement {
        workload,
        proxy: program.label().to_owned(),
        proxy_cpu: program.cpu_time()?.saturating_sub(proxy_before),
        service_cpu: service.cpu_time()?.saturating_sub(service_before),
        // Without the connection of the question itself.
        connects: service.connections_received()? - connects - 1,
        load,
    })
}

/// What `--only` leaves; a kind of which nothing is named stays whole.
fn selection(arguments: &Arguments) -> Result<(Vec<Workload>, Vec<Proxy>), BenchError> {
    let mut workloads = Workload::ALL.to_vec();
    let mut proxies = Proxy::all(&arguments.binaries);
    let names = || {
        let workloads = Workload::ALL.iter().map(|workload| workload.name());
        workloads.chain(Proxy::NAMES)
    };
    if let Some(name) = arguments
        .only
        .iter()
        .find(|only| !names().any(|name| name == *only))
    {
        let list = names().collect::<Vec<_>>().join(", ");
        return Err(BenchError::UnknownName(name.clone(), list));
    }
    let named = |name: &str| arguments.only.iter().any(|only| only == name);
    if workloads.iter().any(|workload| named(workload.name())) {
        workloads.retain(|workload| named(workload.name()));
    }
    if proxies.iter().any(|proxy| named(proxy.name())) {
        proxies.retain(|proxy| named(proxy.name()));
    }
    Ok((workloads, proxies))
}
