//! CPU time of other processes, from /proc. The benchmark also includes this file.

use std::fs;

/// The value of `sysconf(_SC_CLK_TCK)` on all supported Linux platforms.
const TICKS_PER_SECOND: f64 = 100.0;

/// The CPU time of a process since a start.
#[derive(Debug)]
pub(crate) struct CpuClock {
    pid: u32,
    start: Option<u64>,
}

impl CpuClock {
    /// Starts the measurement.
    pub(crate) fn start(pid: u32) -> Self {
        Self { pid, start: ticks(pid) }
    }

    /// The process and its CPU seconds since the start; `None` if the process does not exist.
    pub(crate) fn elapsed(&self) -> (u32, Option<f64>) {
        let used = self.start.zip(ticks(self.pid)).map(|(start, now)| now.saturating_sub(start));
        (self.pid, used.map(|ticks| ticks as f64 / TICKS_PER_SECOND))
    }
}

/// User plus system time in clock ticks, fields 14 and 15. Field 2, in brackets, may contain
/// spaces.
fn ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}
