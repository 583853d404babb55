//! Windows of unequal lengths, such as calendar months: the edges around the present.
//!
//! A replica knows the calendar and works out edges by its own clock; the clock of the store picks
//! the window. The edges of one calendar are the same whenever they are worked out, so replicas
//! whose clocks differ by less than a window agree on all that matters.

use super::Timestamp;

/// The previous, the current and the next window of a calendar, by their edges.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Windows {
    /// The calendar, as keys of counters name it.
    name: &'static str,
    edges: [Timestamp; 4],
}

/// The window that a time is in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    /// Its begin.
    pub start: Timestamp,
    /// Its end, the begin of the next one.
    pub end: Timestamp,
    /// The end of the next one.
    pub next_end: Timestamp,
}

impl Windows {
    /// The windows of the calendar `name` between `edges`, earliest first.
    pub const fn new(name: &'static str, edges: [Timestamp; 4]) -> Self {
        Self { name, edges }
    }

    /// The calendar.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The edges.
    pub const fn edges(&self) -> [Timestamp; 4] {
        self.edges
    }

    /// True if `now` is in the middle window, by which the edges were chosen.
    pub fn are_around(&self, now: Timestamp) -> bool {
        let [_, start, end, _] = self.edges;
        start <= now && now < end
    }

    /// The window that `now` is in. Before the first edge it is the first window; after the last
    /// one it is the last window, which lasts until the next microsecond.
    pub fn at(&self, now: Timestamp) -> Window {
        let [first, second, third, last] = self.edges;
        if now < second {
            Window { start: first, end: second, next_end: third }
        } else if now < third {
            Window { start: second, end: third, next_end: last }
        } else {
            let end = last.max(now.plus_micros(1));
            Window { start: third, end, next_end: end.plus_micros(last.micros_since(third)) }
        }
    }

    /// The end of the window that begins at `start`. One that begins after the last edge is as long
    /// as the last window.
    pub(super) fn end_of(&self, start: Timestamp) -> Timestamp {
        let [.., third, last] = self.edges;
        let after = self.edges.into_iter().find(|edge| *edge > start);
        after.unwrap_or_else(|| start.plus_micros(last.micros_since(third)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_of_the_store_picks_the_window() {
        let edges = [100, 131, 159, 190].map(Timestamp::from_micros);
        let windows = Windows::new("test", edges);
        for (now, start, end, next_end) in [
            (7, 100, 131, 159),
            (100, 100, 131, 159),
            (130, 100, 131, 159),
            (131, 131, 159, 190),
            (158, 131, 159, 190),
            (159, 159, 190, 221),
            (189, 159, 190, 221),
            (190, 159, 191, 222),
            (500, 159, 501, 532),
        ] {
            let [start, end, next_end] = [start, end, next_end].map(Timestamp::from_micros);
            let found = windows.at(Timestamp::from_micros(now));
            assert_eq!(found, Window { start, end, next_end }, "{now}");
        }
        assert!(windows.are_around(Timestamp::from_micros(131)));
        assert!(!windows.are_around(Timestamp::from_micros(159)));
    }
}
