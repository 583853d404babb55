//! The CPU time of other processes, from /proc.

use std::fs;

/// What `sysconf(_SC_CLK_TCK)` is on every Linux that tollgate runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// The CPU time a process has used since a start.
#[derive(Debug)]
pub struct CpuClock {
    pid: u32,
    start: Option<u64>,
}

impl CpuClock {
    /// From now on.
    pub fn start(pid: u32) -> Self {
        Self { pid, start: ticks(pid) }
    }

    /// The process and its CPU seconds since the start; none when it is not there.
    pub fn elapsed(&self) -> (u32, Option<f64>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cpu_time_goes_up() {
        let clock = CpuClock::start(std::process::id());
        let begin = std::time::Instant::now();
        let mut busy = 0_u64;
        while begin.elapsed().as_millis() < 300 {
            busy = std::hint::black_box(busy.wrapping_add(1));
        }
        let (_, used) = clock.elapsed();
        assert!(used.is_some_and(|used| used > 0.05), "{used:?}");
        assert_eq!(CpuClock::start(u32::MAX).elapsed().1, None);
    }
}
