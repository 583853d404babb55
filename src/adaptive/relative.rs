//! The form for requests at a time, and for rules of many values: no number of requests per second
//! is known, so the scale is turned by factors.

use super::course::{Course, Seen};

/// The factor when requests fail, and the least for slow ones.
const HALF: f64 = 0.5;

/// The largest factor for slow ones.
const GENTLE: f64 = 0.9;

/// The seconds in which a change is left to have its effect.
const REST: f64 = 2.0;

/// The scale at which it hurts is not noted again within so many seconds.
const SAME_PAIN: f64 = 5.0;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Relative {
    rest: f64,
}

impl Relative {
    pub(super) fn pass(&mut self, elapsed: f64) {
        self.rest -= elapsed;
    }

    pub(super) fn turn(&mut self, course: &mut Course, seen: &Seen) {
        if self.rest > 0.0 {
            return;
        }
        if !seen.over() {
            if seen.calm {
                course.rise(course.max());
            }
            return;
        }
        if course.mark.is_none_or(|(_, since)| course.now - since > SAME_PAIN) {
            course.mark = Some((course.scale, course.now));
        }
        let by_time = if seen.p95 > 0.0 { course.target() / seen.p95 } else { HALF };
        let factor = if seen.failing { HALF } else { by_time.clamp(HALF, GENTLE) };
        course.scale = (course.scale * factor).max(course.min());
        course.step = course.tuning.slow;
        self.rest = REST;
    }
}
