//! The times of a connection: pings to a silent peer, and messages that take too long.
//!
//! One timer, which is not touched while all goes well.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The next step of a connection whose time has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Due {
    /// Nothing was read for some time.
    Ping,
    /// A ping was not answered.
    Silent,
    /// Calls whose messages began before this have waited for too long.
    Messages(Instant),
}

/// The times of one connection.
#[derive(Debug)]
pub(super) struct Timers {
    keepalive_interval: Duration,
    keepalive_timeout: Duration,
    message_timeout: Duration,
    last_read: Instant,
    pinged: Option<Instant>,
    /// No message has waited for longer than since then.
    oldest_message: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Timers {
    pub(super) fn new(
        (keepalive_interval, keepalive_timeout): (Duration, Duration),
        message_timeout: Duration,
        now: Instant,
    ) -> Self {
        Self {
            keepalive_interval,
            keepalive_timeout,
            message_timeout,
            last_read: now,
            pinged: None,
            oldest_message: None,
            timer: Box::pin(sleep_until(now + keepalive_interval)),
        }
    }

    /// Something was read.
    pub(super) const fn read(&mut self, now: Instant) {
        self.last_read = now;
        self.pinged = None;
    }

    /// A message has begun that is not whole.
    pub(super) fn message(&mut self, now: Instant) {
        if self.oldest_message.is_none() {
            self.oldest_message = Some(now);
            let due = now + self.message_timeout;
            if due < self.timer.deadline() {
                self.timer.as_mut().reset(due);
            }
        }
    }

    /// The next step, if its time has come.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let due = self.due(now);
            let of_pings = match self.pinged {
                Some(pinged) => pinged + self.keepalive_timeout,
                None => self.last_read + self.keepalive_interval,
            };
            let of_messages = self.oldest_message.map(|oldest| oldest + self.message_timeout);
            let next = of_messages.map_or(of_pings, |of_messages| of_messages.min(of_pings));
            self.timer.as_mut().reset(next);
            if let Some(due) = due {
                return Poll::Ready(due);
            }
        }
        Poll::Pending
    }

    fn due(&mut self, now: Instant) -> Option<Due> {
        if let Some(oldest) = self.oldest_message
            && now >= oldest + self.message_timeout
        {
            // Others may have begun since; the next look is for them.
            self.oldest_message = Some(now);
            return now.checked_sub(self.message_timeout).map(Due::Messages);
        }
        match self.pinged {
            Some(pinged) => (now >= pinged + self.keepalive_timeout).then_some(Due::Silent),
            None if now >= self.last_read + self.keepalive_interval => {
                self.pinged = Some(now);
                Some(Due::Ping)
            }
            None => None,
        }
    }

    /// No message waits any more.
    pub(super) const fn no_message(&mut self) {
        self.oldest_message = None;
    }
}
