//! The form for rates: sends what the upstream can do, less what drains its queue in time.

use super::course::{Course, Seen};

/// The time that requests usually take, in seconds, where neither a target nor calm requests tell.
const USUAL: f64 = 0.15;

/// The growth of the usual time with each evaluation: a queue does not pass for usual.
const USUAL_GROWTH: f64 = 1.01;

/// The scale is not raised beyond this much of what is used.
const ABOVE_USE: f64 = 1.5;

#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Requests per second at a scale of 1.
    per_second: f64,
    draining: bool,
    /// The mean time of calm requests, in seconds; zero: not known.
    usual: f64,
}

impl Rate {
    pub(super) const fn new(per_second: f64) -> Self {
        Self { per_second, draining: false, usual: 0.0 }
    }

    pub(super) const fn is_draining(&self) -> bool {
        self.draining
    }

    pub(super) const fn end_draining(&mut self) {
        self.draining = false;
    }

    pub(super) fn turn(&mut self, course: &mut Course, seen: &Seen) {
        if seen.over() {
            self.drain(course, seen);
            return;
        }
        course.open = seen.ended * seen.mean;
        if !seen.calm {
            return;
        }
        if self.draining {
            self.draining = false;
            course.scale = course.scale.max(course.mark.map_or(0.0, |(mark, _)| mark));
            return;
        }
        if seen.mean > 0.0 {
            let most = if self.usual > 0.0 { self.usual * USUAL_GROWTH } else { f64::MAX };
            self.usual = seen.mean.min(most);
        }
        let above = ABOVE_USE * seen.used / self.per_second + course.tuning.fast;
        course.rise(course.max().min(course.scale.max(above)));
    }

    /// The upstream ends so many requests in a second, whatever it is sent: it gets nine tenths of
    /// them, less the requests that wait there, over the time in which they are to be gone.
    fn drain(&mut self, course: &mut Course, seen: &Seen) {
        let keep = course.tuning.keep;
        let most = course.max() * self.per_second;
        let mut able = seen.ended.min(most);
        if !self.draining {
            able = able.min(seen.used);
            course.mark = Some((keep * able / self.per_second, course.now));
        }
        let usual = if let Some(target) = course.terms.p95 {
            target.as_secs_f64() / 2.0
        } else {
            // Errors come late: the queue has grown before, unseen.
            course.open = course.open.max(seen.ended * seen.mean);
            self.usual.max(USUAL)
        };
        let waiting = (course.open - able * usual).max(0.0);
        let drained = (keep * able - waiting / course.terms.drain.as_secs_f64()) / self.per_second;
        let ceiling = match course.mark {
            Some((mark, _)) if self.draining => mark,
            _ => course.scale,
        };
        course.scale = drained.min(ceiling).max(course.min());
        course.step = course.tuning.slow;
        self.draining = true;
    }
}
