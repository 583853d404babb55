//! The descriptors that are limited most, as series: read at each scrape, and few of them.

use std::fmt;
use std::sync::OnceLock;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;

/// A descriptor and the limit that denies it.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct TopLabels {
    /// The domain.
    pub domain: String,
    /// The rule.
    pub rule: String,
    /// The limit that binds.
    pub limit: String,
    /// The descriptor, with sensitive values hashed.
    pub descriptor: String,
}

/// Reads the descriptors, at most so many, with their denials.
type Read = Box<dyn Fn(usize) -> Vec<(TopLabels, u64)> + Send + Sync>;

/// The descriptors that are limited most.
pub(super) struct TopSeries {
    most: usize,
    read: OnceLock<Read>,
}

impl TopSeries {
    /// At most `most` series.
    pub(super) const fn new(most: usize) -> Self {
        Self { most, read: OnceLock::new() }
    }

    /// Reads them by `read` from now on.
    pub(super) fn read_by(&self, read: Read) {
        drop(self.read.set(read));
    }
}

impl fmt::Debug for TopSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopSeries").field("most", &self.most).finish_non_exhaustive()
    }
}

impl Collector for TopSeries {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(read) = self.read.get().filter(|_| self.most > 0) else { return Ok(()) };
        let top = read(self.most);
        if top.is_empty() {
            return Ok(());
        }
        let help =
            "Denials of the descriptors that are limited most, of the last one to two minutes";
        let mut family = encoder.encode_descriptor("top_denials", help, None, MetricType::Gauge)?;
        for (labels, count) in &top {
            family.encode_family(labels)?.encode_gauge(count)?;
        }
        Ok(())
    }
}
