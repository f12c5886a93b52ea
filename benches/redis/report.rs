//! What was measured, as a table: medians over the rounds.

use std::time::Duration;

use crate::load::{Load, Workload};
use crate::programs::{Program, Proxy};
use crate::support::figures::{first_line, host, median, time};

/// One round of one proxy under one workload.
pub(crate) struct Measurement {
    pub(crate) workload: Workload,
    pub(crate) proxy: String,
    pub(crate) proxy_cpu: Duration,
    pub(crate) service_cpu: Duration,
    /// How many connections Redis accepted.
    pub(crate) connects: u64,
    pub(crate) load: Load,
}

impl Measurement {
    fn proxy_us(&self) -> f64 {
        self.proxy_cpu.as_secs_f64() * 1e6 / self.load.requests as f64
    }

    fn service_us(&self) -> f64 {
        self.service_cpu.as_secs_f64() * 1e6 / self.load.requests as f64
    }

    fn rate(&self) -> f64 {
        self.load.requests_per_second
    }
}

/// All rounds so far.
pub(crate) struct Report {
    rounds: u32,
    seconds: u64,
    cores: usize,
    measurements: Vec<Measurement>,
}

impl Report {
    pub(crate) fn new(rounds: u32, seconds: u64, cores: usize) -> Self {
        Self {
            rounds,
            seconds,
            cores,
            measurements: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, measurement: Measurement) {
        self.measurements.push(measurement);
    }

    /// The host and the programs, without which figures mean nothing.
    pub(crate) fn print_host(&self) {
        println!("{}", host());
        println!(
            "{}; {}; {}",
            first_line("redis-server", "--version"),
            first_line("nutcracker", "--version"),
            first_line("redis-benchmark", "--version")
        );
        println!(
            "medians of {} rounds of about {} s, alternating, all on {} cores; CPU is user and system time \
             of the program's processes; ratios are those of the same round",
            self.rounds, self.seconds, self.cores
        );
    }

    pub(crate) fn print(&self, workload: Workload, programs: &[Program]) {
        println!("\n{workload}");
        println!(
            "{:<22}{:>12}{:>12}{:>13}{:>10}{:>12}{:>10}{:>13}{:>10}{:>10}{:>10}",
            "",
            "requests/s",
            "to straight",
            "to twemproxy",
            "Redis µs",
            "to straight",
            "proxy µs",
            "to twemproxy",
            "p50",
            "p99",
            "connects"
        );
        for program in programs {
            self.print_row(workload, program.label());
        }
    }

    fn print_row(&self, workload: Workload, proxy: &str) {
        let rounds = self.rounds_of(workload, proxy);
        let figures = |figure: &dyn Fn(&Measurement) -> f64| {
            rounds.iter().map(|round| figure(round)).collect::<Vec<_>>()
        };
        let to = |base: &str, figure: &dyn Fn(&Measurement) -> f64| {
            let bases = self.rounds_of(workload, base);
            if base == proxy || bases.is_empty() {
                return "–".to_owned();
            }
            let pairs = rounds.iter().zip(bases);
            let ratios = pairs.map(|(round, base)| figure(round) / figure(base));
            format!("{:.2}", median(ratios.collect()))
        };
        let (cpu, cpu_ratio) = if proxy == Proxy::STRAIGHT {
            ("–".to_owned(), "–".to_owned())
        } else {
            (
                format!("{:.2}", median(figures(&Measurement::proxy_us))),
                to(Proxy::TWEMPROXY, &Measurement::proxy_us),
            )
        };
        println!(
            "{proxy:<22}{:>12.0}{:>12}{:>13}{:>10.2}{:>12}{cpu:>10}{cpu_ratio:>13}{:>10}{:>10}{:>10.0}",
            median(figures(&Measurement::rate)),
            to(Proxy::STRAIGHT, &Measurement::rate),
            to(Proxy::TWEMPROXY, &Measurement::rate),
            median(figures(&Measurement::service_us)),
            to(Proxy::STRAIGHT, &Measurement::service_us),
            time(median(figures(&|round| round
                .load
                .latency_p50
                .as_secs_f64()))),
            time(median(figures(&|round| round
                .load
                .latency_p99
                .as_secs_f64()))),
            median(figures(&|round| round.connects as f64)),
        );
    }

    fn rounds_of(&self, workload: Workload, proxy: &str) -> Vec<&Measurement> {
        let of = |round: &&Measurement| round.workload == workload && round.proxy == proxy;
        self.measurements.iter().filter(of).collect()
    }
}
