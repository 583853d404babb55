//! CPU time of other processes, from /proc. The benchmark includes this file, too.

use std::fs;

/// What `sysconf(_SC_CLK_TCK)` is on every Linux that tollgate runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// The CPU time a process has used since a start.
#[derive(Debug)]
pub(crate) struct CpuClock {
    pid: u32,
    start: Option<u64>,
}

impl CpuClock {
    /// From now on.
    pub(crate) fn start(pid: u32) -> Self {
        Self { pid, start: ticks(pid) }
    }

    /// The process and its CPU seconds since the start; none when it is not there.
    pub(crate) fn elapsed(&self) -> (u32, Option<f64>) {
        let used = self.start.zip(ticks(self.pid)).map(|(start, now)| now.saturating_sub(start));
        (self.pid, used.map(|ticks| ticks as f64 / TICKS_PER_SECOND))
    }
}

/// User and system time, the 14th and 15th field; the second one, in brackets, may hold spaces.
fn ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}
