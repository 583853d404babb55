//! From seconds to scales: what both forms of the controller share.
//!
//! A few requests may fail or be slow by chance, so a target counts as missed only beyond three
//! standard deviations. Where replicas report only a part of what ended, the part is estimated;
//! without reports the scale stays, since nothing is known.

use std::time::Duration;

use super::course::{Course, Seen, Tuning, WHOLE};
use super::rate::Rate;
use super::relative::Relative;
use super::second::Second;
use super::terms::Terms;

/// The share of requests that may take longer than `p95`.
const SLOW: f64 = 0.05;

/// The shortest span by which counts are divided.
const SHORTEST: f64 = 1e-3;

/// The least share of ends that must be reported.
const LEAST_COVERAGE: f64 = 0.05;

/// The way in which a rule is turned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// Its limits are so many requests in a second together.
    Rate {
        /// Requests per second at a scale of 1000.
        per_second: f64,
    },
    /// Its limits are on requests at a time, or for each of many values.
    Relative,
}

/// The outcome of a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Thousandths of the limits, within the terms.
    pub scale: u16,
    /// Requests are admitted, and too few ends are reported to know anything.
    pub blind: bool,
    /// The scale was turned down, and why.
    pub cut: Option<Cause>,
}

/// The reason for turning a scale down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// More requests failed than may.
    Errors,
    /// More requests were slow than may.
    Time,
}

impl Cause {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Errors => "more errors than the target",
            Self::Time => "slower than the target",
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Mover {
    Rate(Rate),
    Relative(Relative),
}

/// The controller of one rule.
#[derive(Clone, Debug)]
pub struct Controller {
    course: Course,
    mover: Mover,
    /// Since the last evaluation.
    gathered: Second,
    seconds: f64,
    /// The share of ends that are reported, over so many evaluations.
    coverage: f64,
    evaluations: f64,
    /// Seconds since the last report, and whether requests were admitted since.
    silence: f64,
    unheard: bool,
    /// Too small a share of ends is reported.
    thin: bool,
    /// The target that the last evaluation found missed.
    cause: Option<Cause>,
}

impl Controller {
    /// A controller that begins at `scale`, in thousandths.
    pub fn new(terms: Terms, form: Form, scale: u16) -> Self {
        Self::tuned(terms, form, scale, Tuning::DEFAULT)
    }

    pub(super) fn tuned(terms: Terms, form: Form, scale: u16, tuning: Tuning) -> Self {
        let course = Course {
            terms,
            tuning,
            scale: f64::from(scale) / WHOLE,
            mark: None,
            step: tuning.slow,
            now: 0.0,
            open: 0.0,
        };
        let mover = match form {
            Form::Rate { per_second } => Mover::Rate(Rate::new(per_second)),
            Form::Relative => Mover::Relative(Relative::default()),
        };
        Self {
            course,
            mover,
            gathered: Second::default(),
            seconds: 0.0,
            coverage: 1.0,
            evaluations: 0.0,
            silence: 0.0,
            unheard: false,
            thin: false,
            cause: None,
        }
    }

    /// The terms that it goes by.
    pub const fn terms(&self) -> &Terms {
        &self.course.terms
    }

    /// Takes what was seen in the last `elapsed`, normally a second.
    pub fn observe(&mut self, second: &Second, elapsed: Duration) -> Step {
        let elapsed = elapsed.as_secs_f64();
        self.course.now += elapsed;
        self.listen(second, elapsed);
        if let Mover::Relative(relative) = &mut self.mover {
            relative.pass(elapsed);
        }
        let unreported = second.started() as f64 - second.ended as f64 / self.coverage;
        self.course.open = (self.course.open + unreported).max(0.0);
        self.gathered.merge(second);
        self.seconds += elapsed;
        let before = self.course.scale;
        let Tuning { ends, patience, .. } = self.course.tuning;
        if self.gathered.ended >= ends || self.seconds >= patience {
            self.evaluate();
        }
        let cut = self.cause.filter(|_| self.course.scale < before);
        let (min, max) = (self.course.min(), self.course.max());
        self.course.scale = self.course.scale.clamp(min, max);
        let scale = (self.course.scale * WHOLE).round() as u16;
        Step { scale, blind: self.is_blind(), cut }
    }

    /// Notes whether reports come.
    fn listen(&mut self, second: &Second, elapsed: f64) {
        if second.ended > 0 {
            (self.silence, self.unheard) = (0.0, false);
        } else {
            self.silence += elapsed;
            self.unheard |= second.started() > 0;
        }
    }

    fn is_blind(&self) -> bool {
        self.thin || (self.unheard && self.silence >= self.course.tuning.patience)
    }

    fn evaluate(&mut self) {
        let gathered = std::mem::take(&mut self.gathered);
        let seconds = std::mem::replace(&mut self.seconds, 0.0).max(SHORTEST);
        let started = gathered.started();
        if gathered.ended == 0 {
            if started == 0 && !self.unheard {
                self.idle();
            }
            return;
        }
        let seen = self.judged(&gathered, seconds);
        self.cause = match (seen.failing, seen.slow) {
            (true, _) => Some(Cause::Errors),
            (false, true) => Some(Cause::Time),
            (false, false) => None,
        };
        self.cover(&seen, gathered.ended as f64, started as f64);
        if self.is_blind() {
            return;
        }
        match &mut self.mover {
            Mover::Rate(rate) => rate.turn(&mut self.course, &seen),
            Mover::Relative(relative) => relative.turn(&mut self.course, &seen),
        }
    }

    /// Nothing was asked for a while: there is nothing to protect.
    fn idle(&mut self) {
        self.thin = false;
        self.course.open = 0.0;
        if let Mover::Rate(rate) = &mut self.mover {
            rate.end_draining();
        }
        let step = self.course.tuning.fast * self.course.max();
        self.course.scale = (self.course.scale + step).min(self.course.max());
    }

    /// Estimates the share of ends that are reported. It is not estimated while a queue grows or is
    /// drained, as ends lag behind then. Once there are enough reports again, the estimate starts
    /// over: what was lost before says nothing of those that come now.
    fn cover(&mut self, seen: &Seen, ended: f64, started: f64) {
        let draining = matches!(&self.mover, Mover::Rate(rate) if rate.is_draining());
        if started == 0.0 {
            return;
        }
        let found = (ended / started).min(1.0);
        if self.thin && found >= LEAST_COVERAGE {
            (self.thin, self.coverage, self.evaluations) = (false, 1.0, 0.0);
        }
        if seen.over() || draining {
            return;
        }
        self.evaluations += 1.0;
        let weight = (1.0 / self.evaluations).max(0.1);
        let coverage = self.coverage + (found - self.coverage) * weight;
        self.thin = coverage < LEAST_COVERAGE;
        if self.course.tuning.coverage {
            self.coverage = coverage.clamp(LEAST_COVERAGE, 1.0);
        }
    }

    fn judged(&self, gathered: &Second, seconds: f64) -> Seen {
        let ended = gathered.ended as f64;
        let Terms { p95, errors, .. } = self.course.terms;
        // Of so few, as many may be by chance.
        let chance = |share: f64| {
            let deviation = (share * (1.0 - share).max(0.0) * ended).sqrt();
            share * ended + self.course.tuning.sigmas * deviation
        };
        let known = gathered.times.total();
        let failing = errors.is_some_and(|share| gathered.errors as f64 > chance(share));
        let slow = p95.is_some() && gathered.slow as f64 > chance(SLOW);
        let few_fail = errors.is_none_or(|share| gathered.errors as f64 <= share * ended);
        // Failures without a time are in no cell.
        let few_slow = gathered.slow as f64 <= SLOW * ended;
        let quick = known == 0 || gathered.quick as f64 > (known as f64 * (1.0 - SLOW)).floor();
        let percentile = gathered.times.percentile(1.0 - SLOW);
        Seen {
            failing,
            slow,
            calm: few_fail && (p95.is_none() || (quick && few_slow)),
            used: gathered.started() as f64 / seconds,
            ended: ended / seconds / self.coverage,
            mean: gathered.mean(),
            p95: percentile.map_or(0.0, |millis| millis / 1e3),
        }
    }
}
