//! What was measured, as a table: medians over the rounds.

use std::time::Duration;

use crate::load::{Load, Speech, Workload};
use crate::programs::Proxy;
use crate::support::figures::{first_line, host, median, time};

/// One round of one proxy under one workload.
pub(crate) struct Measurement {
    pub(crate) workload: Workload,
    pub(crate) proxy: Proxy,
    pub(crate) proxy_cpu: Duration,
    pub(crate) service_cpu: Duration,
    pub(crate) load: Load,
}

impl Measurement {
    fn proxy_us(&self) -> f64 {
        self.proxy_cpu.as_secs_f64() * 1e6 / self.load.requests as f64
    }

    fn service_us(&self) -> f64 {
        self.service_cpu.as_secs_f64() * 1e6 / self.load.requests as f64
    }
}

/// All rounds so far.
pub(crate) struct Report {
    rounds: u32,
    seconds: u64,
    measurements: Vec<Measurement>,
}

impl Report {
    pub(crate) fn new(rounds: u32, seconds: u64) -> Self {
        Self {
            rounds,
            seconds,
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
            first_line("nginx", "-v"),
            first_line("haproxy", "-v"),
            first_line("wrk", "-v")
        );
        println!(
            "medians of {} rounds of {} s, alternating; CPU is user and system time of the program's \
             processes; the ratio is that of the same round",
            self.rounds, self.seconds
        );
    }

    pub(crate) fn print(&self, workload: Workload) {
        println!("\n{workload}");
        println!(
            "{:<20}{:>10}{:>17}{:>16}{:>12}{:>12}{:>10}{:>10}{:>10}",
            "",
            "CPU µs/req",
            "min–max",
            format!("to {}", base(workload).name()),
            "service µs",
            "requests/s",
            "p50",
            "p99",
            "failures"
        );
        for proxy in Proxy::ALL {
            self.print_row(workload, proxy);
        }
    }

    fn print_row(&self, workload: Workload, proxy: Proxy) {
        let rounds = self.rounds_of(workload, proxy);
        if rounds.is_empty() {
            return;
        }
        let figures = |figure: &dyn Fn(&Measurement) -> f64| {
            rounds.iter().map(|round| figure(round)).collect::<Vec<_>>()
        };
        let proxy_us = figures(&Measurement::proxy_us);
        let bases = self.rounds_of(workload, base(workload));
        let ratios: Vec<_> = rounds
            .iter()
            .zip(bases)
            .map(|(round, base)| round.proxy_us() / base.proxy_us())
            .collect();
        let (cpu, range, ratio) = if proxy == Proxy::Straight {
            ("–".to_owned(), "–".to_owned(), "–".to_owned())
        } else {
            let least = proxy_us.iter().copied().fold(f64::INFINITY, f64::min);
            let most = proxy_us.iter().copied().fold(0.0, f64::max);
            let ratio = if ratios.is_empty() {
                "–".to_owned()
            } else {
                format!("{:.2}", median(ratios))
            };
            (
                format!("{:.1}", median(proxy_us)),
                format!("{least:.1}–{most:.1}"),
                ratio,
            )
        };
        let failures: u64 = rounds.iter().map(|round| round.load.failures).sum();
        println!(
            "{:<20}{cpu:>10}{range:>17}{ratio:>16}{:>12.1}{:>12.0}{:>10}{:>10}{failures:>10}",
            proxy.name(),
            median(figures(&Measurement::service_us)),
            median(figures(&|round| round.load.requests_per_second)),
            time(median(figures(&|round| round
                .load
                .latency_p50
                .as_secs_f64()))),
            time(median(figures(&|round| round
                .load
                .latency_p99
                .as_secs_f64()))),
        );
    }

    fn rounds_of(&self, workload: Workload, proxy: Proxy) -> Vec<&Measurement> {
        let of = |round: &&Measurement| round.workload == workload && round.proxy == proxy;
        self.measurements.iter().filter(of).collect()
    }
}

/// What the others are held against.
fn base(workload: Workload) -> Proxy {
    match workload.speech() {
        Speech::Http => Proxy::Nginx,
        Speech::Tcp => Proxy::HaproxyTcp,
        Speech::Frames => Proxy::Floor,
    }
}
