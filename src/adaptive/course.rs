//! What both forms of the controller know, and change.

use super::terms::Terms;

/// The scale at which limits are whole, in thousandths.
pub(super) const WHOLE: f64 = 1_000.0;

/// The numbers that the controller goes by. Tests change them to show that they matter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    /// The ends that an evaluation waits for, and the seconds for which it does.
    pub(super) ends: u64,
    pub(super) patience: f64,
    /// Standard deviations by which a target must be missed.
    pub(super) sigmas: f64,
    /// The share of what the upstream could do when it last hurt that is sent to it.
    pub(super) keep: f64,
    /// Steps upwards, as shares of the largest scale, and the growth of the slow one.
    pub(super) fast: f64,
    pub(super) slow: f64,
    pub(super) growth: f64,
    /// The share of the mark from which on steps are slow, and the seconds for which it is known.
    pub(super) margin: f64,
    pub(super) forget: f64,
    /// The share of ends that are reported is estimated.
    pub(super) coverage: bool,
}

impl Tuning {
    pub(super) const DEFAULT: Self = Self {
        ends: 20,
        patience: 10.0,
        sigmas: 3.0,
        keep: 0.9,
        fast: 0.05,
        slow: 0.01,
        growth: 1.2,
        margin: 0.85,
        forget: 60.0,
        coverage: true,
    };
}

/// The seconds since the last evaluation, judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// More failed than may.
    pub(super) failing: bool,
    /// More were slow than may.
    pub(super) slow: bool,
    /// Well within the targets.
    pub(super) calm: bool,
    /// Admissions per second.
    pub(super) used: f64,
    /// Ends per second, those that are not reported included.
    pub(super) ended: f64,
    /// The mean time, in seconds.
    pub(super) mean: f64,
    /// The time that 95 of 100 did not exceed, in seconds.
    pub(super) p95: f64,
}

impl Seen {
    pub(super) const fn over(&self) -> bool {
        self.failing || self.slow
    }
}

/// The state that both forms share, and change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    pub(super) terms: Terms,
    pub(super) tuning: Tuning,
    /// The part of the limits: 1 is all.
    pub(super) scale: f64,
    /// The scale at which it hurt, or that kept it from hurting, and when.
    pub(super) mark: Option<(f64, f64)>,
    /// The slow step.
    pub(super) step: f64,
    /// Seconds since the beginning.
    pub(super) now: f64,
    /// Requests under way, as far as the counts say.
    pub(super) open: f64,
}

impl Course {
    pub(super) fn min(&self) -> f64 {
        f64::from(self.terms.min.min(self.terms.max)) / WHOLE
    }

    pub(super) fn max(&self) -> f64 {
        f64::from(self.terms.max) / WHOLE
    }

    /// The target of times in seconds.
    pub(super) fn target(&self) -> f64 {
        self.terms.p95.map_or(0.3, |target| target.as_secs_f64())
    }

    /// Goes up by a step, to at most `top`.
    pub(super) fn rise(&mut self, top: f64) {
        let Tuning { fast, growth, margin, forget, .. } = self.tuning;
        self.mark = self.mark.filter(|(_, since)| self.now - since <= forget);
        let near = self.mark.is_some_and(|(mark, _)| self.scale >= margin * mark);
        let step = if near { self.step } else { fast };
        if near {
            self.step = (self.step * growth).min(fast);
        }
        self.scale = (self.scale + step * self.max()).min(top);
    }
}
