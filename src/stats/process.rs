//! What the kernel says about this process, from `/proc` (proc(5)).
//!
//! The metrics library's own collector counts CPU time in whole seconds, too coarse to compare two
//! short runs with; this reads the same files in hundredths.

use std::fs;

/// What the kernel says about this process. What can't be read is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Process {
    /// User and system CPU time.
    pub cpu_seconds: Option<f64>,
    /// Descriptors open now.
    pub open_descriptors: Option<f64>,
    /// The soft limit on descriptors; `None` also where there is none.
    pub descriptors_max: Option<f64>,
    /// Resident memory.
    pub resident_bytes: Option<f64>,
    /// Virtual memory.
    pub virtual_bytes: Option<f64>,
    /// When it started, seconds since 1970.
    pub started_at: Option<f64>,
    /// Its threads.
    pub threads: Option<f64>,
}

/// Clock ticks in a second as `/proc` counts them: `USER_HZ`, 100 on every architecture that this
/// program is built for.
const TICKS: f64 = 100.0;

impl Process {
    /// Reads all of it, now.
    pub fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            // The listing's own descriptor is among them.
            open_descriptors: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|listing| listing.count().saturating_sub(1) as f64),
            ..Self::parse(
                &text("/proc/self/stat"),
                &text("/proc/self/status"),
                &text("/proc/self/limits"),
                &text("/proc/stat"),
            )
        }
    }

    fn parse(stat: &str, status: &str, limits: &str, kernel: &str) -> Self {
        let started_ticks = stat_field(stat, 22);
        let booted_at = kernel
            .lines()
            .find_map(|line| line.strip_prefix("btime "))
            .and_then(|seconds| seconds.trim().parse::<f64>().ok());
        Self {
            cpu_seconds: stat_field(stat, 14)
                .zip(stat_field(stat, 15))
                .map(|(user, system)| (user + system) / TICKS),
            open_descriptors: None,
            descriptors_max: limits
                .lines()
                .find_map(|line| line.strip_prefix("Max open files"))
                .and_then(|line| line.split_whitespace().next())
                .and_then(|soft| soft.parse().ok()),
            resident_bytes: status_kilobytes(status, "VmRSS:"),
            virtual_bytes: status_kilobytes(status, "VmSize:"),
            started_at: booted_at
                .zip(started_ticks)
                .map(|(booted, ticks)| booted + ticks / TICKS),
            threads: stat_field(stat, 20),
        }
    }
}

/// The field of `/proc/self/stat` with this number in proc(5). The second, the program's name, may
/// hold anything but ends at the last parenthesis.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, from_third) = stat.rsplit_once(") ")?;
    let field = from_third.split_whitespace().nth(number - 3)?;
    field.parse().ok()
}

fn status_kilobytes(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_found_in_its_field() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 8 0 0 0 150 25 0 0 20 0 3 0 4200 99 9";
        let status = "Name:\ta\nVmSize:\t    2048 kB\nVmRSS:\t      12 kB\n";
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files   1024  524288  files\n";
        let process = Process::parse(stat, status, limits, "cpu 1 2\nbtime 1000\n");
        assert_eq!(
            process,
            Process {
                cpu_seconds: Some(1.75),
                open_descriptors: None,
                descriptors_max: Some(1024.0),
                resident_bytes: Some(12.0 * 1024.0),
                virtual_bytes: Some(2048.0 * 1024.0),
                started_at: Some(1042.0),
                threads: Some(3.0),
            }
        );
    }

    #[test]
    fn what_is_not_there_is_nothing() {
        let none = Process::parse("", "", "Max open files  unlimited unlimited files", "");
        assert_eq!(none, Process::default());
    }

    #[test]
    fn this_process_can_be_read() {
        let process = Process::read();
        assert!(process.open_descriptors.is_some_and(|count| count >= 3.0));
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 4096.0));
        assert!(process.started_at.is_some_and(|at| at > 1.6e9));
        assert!(process.threads.is_some_and(|threads| threads >= 1.0));
        assert!(process.cpu_seconds.is_some());
    }
}
