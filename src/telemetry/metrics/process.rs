//! The series `process_*`, under the names of the client libraries of Prometheus. They are read at
//! each scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::telemetry::process::ProcessNumbers;

/// Reads the numbers of this process.
#[derive(Debug)]
pub(super) struct ProcessMetrics;

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let numbers = ProcessNumbers::read();
        for (name, help, unit, value) in [
            ("resident_memory", "Memory of the process", Some(Unit::Bytes), numbers.resident_bytes),
            (
                "virtual_memory",
                "Address space of the process",
                Some(Unit::Bytes),
                numbers.virtual_bytes,
            ),
            ("open_fds", "Open file descriptors", None, numbers.open_fds),
            ("max_fds", "The most file descriptors that may be open", None, numbers.max_fds),
        ] {
            if let Some(value) = value {
                encoder
                    .encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?
                    .encode_gauge(&value)?;
            }
        }
        let seconds = Some(&Unit::Seconds);
        if let Some(value) = numbers.cpu_seconds {
            let help = "CPU time of the process, user and system";
            encoder
                .encode_descriptor("cpu", help, seconds, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        if let Some(value) = numbers.started {
            let help = "Start of the process, since 1970";
            encoder
                .encode_descriptor("start_time", help, seconds, MetricType::Gauge)?
                .encode_gauge(&value)?;
        }
        Ok(())
    }
}
