//! What was measured, side by side, and what it means.

use std::time::Duration;

use super::{Leg, POOL_SIZE};

const NOT_THERE: &str = "–";

/// Prints the table, the costs included, and how to go on.
pub(super) fn print(straight: &Leg, pooled: &Leg) {
    let row = |name: &str, figure: &dyn Fn(&Leg) -> String| {
        println!("{name:<52}{:>12}{:>18}", figure(straight), figure(pooled));
    };
    println!("{:<52}{:>12}{:>18}", "", "straight", "through millpond");
    row("clients that got their answer", &|leg| {
        count(leg.churn.latencies.len())
    });
    row("clients that failed", &|leg| {
        count(leg.churn.failures.len())
    });
    row("  of them: connection reset by peer", &|leg| {
        count(leg.churn.resets())
    });
    row("  of them: got an answer meant for another", &|leg| {
        count(leg.churn.foreign())
    });
    row("connects that the service saw", &|leg| count(leg.connects));
    row("TIME_WAIT towards the service, dialling side", &|leg| {
        count(leg.at_service.dialling)
    });
    row("TIME_WAIT towards the service, service's side", &|leg| {
        count(leg.at_service.listening)
    });
    row("TIME_WAIT towards millpond, clients' side", &|leg| {
        leg.at_millpond
            .map_or_else(absent, |time_wait| count(time_wait.dialling))
    });
    row("TIME_WAIT towards millpond, millpond's side", &|leg| {
        leg.at_millpond
            .map_or_else(absent, |time_wait| count(time_wait.listening))
    });
    row("clients a second", &|leg| count(per_second(leg)));
    row("latency, median", &|leg| {
        quantile(leg, 50).map_or_else(absent, time)
    });
    row("latency, 99 of 100 below", &|leg| {
        quantile(leg, 99).map_or_else(absent, time)
    });
    row("the service's CPU for one client", &|leg| {
        leg.service_cpu
            .map_or_else(absent, |cpu| time(cpu / clients(leg)))
    });
    print_meaning(straight, pooled);
    println!("\nIn front of your own service:");
    println!(
        "  millpond run --listen 127.0.0.1:8081 --upstream http://127.0.0.1:8080 --admin 127.0.0.1:9900"
    );
    println!("  then send your clients to port 8081 and look at http://127.0.0.1:9900/metrics");
}

fn print_meaning(straight: &Leg, pooled: &Leg) {
    let left_straight = straight.at_service.dialling + straight.at_service.listening;
    println!("\nWho ends a connection first keeps TIME_WAIT, for 60 s; these clients did.");
    println!(
        "Straight, {} of them towards the service; each holds a port of the dialling host.",
        count(left_straight)
    );
    if (left_straight as u64) < straight.connects {
        println!("(Loopback gives a port out again after one second, so some are gone already.)");
    }
    println!(
        "Through millpond, with a pool of {POOL_SIZE}, the service saw {} connects.",
        count(pooled.connects)
    );
    if let Some(at_millpond) = pooled.at_millpond {
        println!(
            "The clients' own leg keeps its TIME_WAIT: {} towards millpond. A Unix socket has none.",
            count(at_millpond.dialling + at_millpond.listening)
        );
    }
    if let Some(stopped) = pooled.at_service_stopped {
        println!(
            "When millpond stopped, it closed its pool: then {} were in TIME_WAIT towards the service.",
            count(stopped.dialling + stopped.listening)
        );
    }
    if let (Some(before), Some(after)) = (quantile(straight, 50), quantile(pooled, 50)) {
        println!(
            "The price is one more hop: the median client took {} straight, {} through millpond.",
            time(before),
            time(after)
        );
    }
}

fn absent() -> String {
    NOT_THERE.to_owned()
}

/// `12,345`
fn count(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn time(duration: Duration) -> String {
    let us = duration.as_secs_f64() * 1e6;
    if us < 1e3 {
        format!("{us:.0} µs")
    } else {
        format!("{:.2} ms", us / 1e3)
    }
}

fn clients(leg: &Leg) -> u32 {
    u32::try_from(leg.churn.clients())
        .unwrap_or(u32::MAX)
        .max(1)
}

fn per_second(leg: &Leg) -> u64 {
    let rate = leg.churn.latencies.len() as f64 / leg.churn.duration.as_secs_f64().max(1e-9);
    rate as u64
}

/// The latency that `percent` of the answered clients did not exceed; `None`: nobody was answered.
fn quantile(leg: &Leg, percent: usize) -> Option<Duration> {
    let latencies = &leg.churn.latencies;
    latencies
        .get((latencies.len() * percent / 100).min(latencies.len().saturating_sub(1)))
        .copied()
}
