//! One measurement, and the figures that can be taken from it.

use super::table::short;

/// What one measurement found.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    pub calls_per_second: f64,
    /// Descriptors, or what else is counted.
    pub decisions_per_second: f64,
    pub p99_ms: f64,
    /// CPU seconds of the server in each second.
    pub server_cpu: f64,
    /// CPU seconds of all processes of Redis in each second.
    pub redis_cpu: Option<f64>,
    /// What must not be overlooked.
    pub remarks: Vec<String>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Figure {
    CallsPerServerCpu,
    DecisionsPerServerCpu,
    DecisionsPerRedisCpu,
    CallsPerSecond,
    P99,
}

impl Figure {
    pub fn of(self, sample: &Sample) -> f64 {
        let Sample { calls_per_second, decisions_per_second, p99_ms, server_cpu, .. } = sample;
        match self {
            Self::CallsPerServerCpu => calls_per_second / server_cpu,
            Self::DecisionsPerServerCpu => decisions_per_second / server_cpu,
            Self::DecisionsPerRedisCpu => {
                decisions_per_second / sample.redis_cpu.unwrap_or(f64::NAN)
            }
            Self::CallsPerSecond => *calls_per_second,
            Self::P99 => *p99_ms,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::CallsPerServerCpu => "calls per server-CPU-second",
            Self::DecisionsPerServerCpu => "decisions per server-CPU-second",
            Self::DecisionsPerRedisCpu => "decisions per Redis-CPU-second",
            Self::CallsPerSecond => "calls per second",
            Self::P99 => "p99",
        }
    }

    /// The figure with its unit.
    pub fn show(self, figure: f64) -> String {
        match self {
            Self::P99 => format!("{figure:.2} ms"),
            _ => short(figure),
        }
    }
}

impl Sample {
    /// One line for who watches.
    pub fn show(&self) -> String {
        let mut parts = vec![
            format!("{:>6}/s", short(self.decisions_per_second)),
            format!("server {:.2} CPU", self.server_cpu),
        ];
        parts.extend(self.redis_cpu.map(|redis| format!("Redis {redis:.2} CPU")));
        parts.extend((self.p99_ms > 0.0).then(|| format!("p99 {:.2} ms", self.p99_ms)));
        parts.extend(self.remarks.clone());
        parts.join(", ")
    }
}

/// The middle of the numbers; of an even count the mean of the two in the middle.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    if numbers.len() % 2 == 1 {
        numbers[middle]
    } else {
        f64::midpoint(numbers[middle - 1], numbers[middle])
    }
}
