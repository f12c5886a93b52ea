//! What one request costs in millpond, and what it costs in nginx and HAProxy beside it.
//!
//! All stand in front of the same nginx service, on loopback, in the same run; rounds alternate
//! between them, in an order that turns, so that what else the host does falls on all alike. The
//! figure that counts is CPU time of the proxy's own processes for one request: it stays comparable
//! when the host is shared, where requests per second do not.
//!
//! Not here: claims. The program prints what it measured and on which host.
//!
//! ```text
//! cargo bench --bench proxies -- --rounds 7 --seconds 3
//! cargo bench --bench proxies -- --only keepalive,nginx,millpond
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod floor;
mod load;
mod programs;
mod report;
mod short;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use load::{LoadError, Workload};
use programs::{Program, Proxy, Service};
use report::{Measurement, Report};
use support::process::{ProgramError, Workplace};

/// Compares the CPU time that proxies spend on one request.
#[derive(Parser)]
struct Arguments {
    /// Rounds for each proxy and workload; the table shows medians over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of load in one round.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only these, separated by commas: keepalive, churn, bodies, tcp_keepalive, tcp_churn, tcp_short,
    /// tcp_bodies, frames; nginx, haproxy, millpond, millpond_all_cores, nginx_stream, haproxy_tcp, millpond_tcp,
    /// millpond_tcp_reuse, millpond_frames, floor, straight.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Be the cheapest relay: listen on the first address, dial the second.
    #[arg(long, hide = true, num_args = 2)]
    floor: Vec<SocketAddr>,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let [listen, upstream] = arguments.floor[..] {
        return match floor::relay(listen, upstream) {
            Ok(never) => match never {},
            Err(error) => {
                eprintln!("floor: {error}");
                ExitCode::FAILURE
            }
        };
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxies: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why there is no complete table.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error("--only does not know {0:?}; it knows {1}")]
    UnknownName(String, String),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Load(#[from] LoadError),
}

fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let (workloads, proxies) = selection(&arguments.only)?;
    let workplace = Workplace::new()?;
    let service = Service::start(&workplace)?;
    let is_needed = |proxy: &&Proxy| workloads.iter().any(|it| proxy.speaks(it.speech()));
    let programs = proxies
        .iter()
        .filter(is_needed)
        .map(|&proxy| Program::start(proxy, &workplace, service.address()))
        .collect::<Result<Vec<_>, _>>()?;

    let mut report = Report::new(arguments.rounds, arguments.seconds);
    report.print_host();
    for &workload in &workloads {
        let stands = |program: &&Program| program.proxy().speaks(workload.speech());
        let programs: Vec<&Program> = programs.iter().filter(stands).collect();
        for program in &programs {
            load::run(workload, program.address(), Duration::from_secs(1))?; // warms both up
        }
        for round in 0..arguments.rounds {
            let count = programs.len();
            for place in 0..count {
                let program = programs[(place + round as usize) % count];
                let seconds = Duration::from_secs(arguments.seconds);
                report.add(measure(workload, program, &service, seconds)?);
            }
        }
        report.print(workload);
    }
    Ok(())
}

fn measure(
    workload: Workload,
    program: &Program,
    service: &Service,
    duration: Duration,
) -> Result<Measurement, BenchError> {
    let proxy_before = program.cpu_time()?;
    let service_before = service.cpu_time()?;
    let load = load::run(workload, program.address(), duration)?;
    Ok(Measurement {
        workload,
        proxy: program.proxy(),
        proxy_cpu: program.cpu_time()?.saturating_sub(proxy_before),
        service_cpu: service.cpu_time()?.saturating_sub(service_before),
        load,
    })
}

/// What `--only` leaves; a kind of which nothing is named stays whole.
fn selection(only: &[String]) -> Result<(Vec<Workload>, Vec<Proxy>), BenchError> {
    let known = || {
        let workloads = Workload::ALL.iter().map(|workload| workload.name());
        workloads.chain(Proxy::ALL.iter().map(|proxy| proxy.name()))
    };
    if let Some(name) = only.iter().find(|only| !known().any(|name| name == *only)) {
        let list = known().collect::<Vec<_>>().join(", ");
        return Err(BenchError::UnknownName(name.clone(), list));
    }
    let named = |name: &str| only.iter().any(|only| only == name);
    let mut workloads = Workload::ALL.to_vec();
    if workloads.iter().any(|workload| named(workload.name())) {
        workloads.retain(|workload| named(workload.name()));
    }
    let mut proxies = Proxy::ALL.to_vec();
    if proxies.iter().any(|proxy| named(proxy.name())) {
        proxies.retain(|proxy| named(proxy.name()));
    }
    Ok((workloads, proxies))
}
