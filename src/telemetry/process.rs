//! Numbers of this process, as the kernel has them in `/proc`.
//!
//! A number that cannot be read is left out: it is none of the service's business to fail for it.
//!
//! Source: proc(5).

use std::fs;

/// The value of `sysconf(_SC_CLK_TCK)` on all supported Linux platforms.
const TICKS_PER_SECOND: f64 = 100.0;

/// The numbers of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessNumbers {
    /// Bytes in memory.
    pub resident_bytes: Option<u64>,
    /// Bytes of the address space.
    pub virtual_bytes: Option<u64>,
    /// Seconds of CPU time, user and system.
    pub cpu_seconds: Option<f64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// The most file descriptors that may be open.
    pub max_fds: Option<u64>,
    /// The start, in seconds since 1970.
    pub started: Option<f64>,
}

impl ProcessNumbers {
    /// The numbers at this moment. Blocks for some microseconds, and longer with thousands of open
    /// file descriptors.
    pub fn read() -> Self {
        let status = read("self/status");
        let bytes = |name| Some(number(line(status.as_deref()?, name)?)? * 1_024);
        let stat = read("self/stat");
        Self {
            resident_bytes: bytes("VmRSS:"),
            virtual_bytes: bytes("VmSize:"),
            cpu_seconds: stat.as_deref().and_then(cpu_seconds),
            // One of them is that of the directory.
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|open| (open.count() as u64).saturating_sub(1)),
            max_fds: read("self/limits").and_then(|text| number(line(&text, "Max open files")?)),
            started: stat.as_deref().and_then(started),
        }
    }
}

fn read(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{name}")).ok()
}

/// The rest of the line that begins with `name`.
fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))
}

/// The first word as a number.
fn number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// A field of `/proc/self/stat`, counted from 1. Field 2, in brackets, may contain spaces.
fn field(stat: &str, field: usize) -> Option<f64> {
    let after = stat.rsplit_once(')')?.1;
    after.split_whitespace().nth(field.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) / TICKS_PER_SECOND)
}

fn started(stat: &str) -> Option<f64> {
    let booted = number(line(&read("stat")?, "btime")?)?;
    Some(booted as f64 + field(stat, 22)? / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_this_process() {
        let file = fs::File::open("/proc/self/stat").unwrap();
        let numbers = ProcessNumbers::read();
        let (resident, space) = (numbers.resident_bytes.unwrap(), numbers.virtual_bytes.unwrap());
        assert!(resident > 100_000 && resident < space, "{numbers:?}");
        let (open, most) = (numbers.open_fds.unwrap(), numbers.max_fds.unwrap());
        assert!(open > 3 && open < most, "{numbers:?}");
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let age = now - numbers.started.unwrap();
        assert!((-2.0..86_400.0).contains(&age), "{numbers:?} at {now}");
        assert!(numbers.cpu_seconds.unwrap() < 86_400.0, "{numbers:?}");
        drop(file);
    }

    #[test]
    fn fields_are_counted_after_the_name_of_the_program() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 0 0 1 0 400";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(field(stat, 22), Some(400.0));
    }
}
