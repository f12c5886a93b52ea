//! What was measured, as a table: medians over the rounds.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::load::{Load, Speech, Workload};
use crate::programs::Proxy;

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
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.map_or("unknown CPU", |model| {
            model.trim_start_matches([' ', '\t', ':'])
        });
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default().to_owned();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!(
            "{model}, {cores} cores, Linux {}, load {load} at the start",
            kernel.trim()
        );
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

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 {
        figures[middle]
    } else {
        f64::midpoint(figures[middle - 1], figures[middle])
    }
}

fn time(seconds: f64) -> String {
    if seconds < 1e-3 {
        format!("{:.0} µs", seconds * 1e6)
    } else {
        format!("{:.2} ms", seconds * 1e3)
    }
}

fn first_line(program: &str, argument: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output() else {
        return format!("{program}: absent");
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    said.lines().next().unwrap_or_default().trim().to_owned()
}
