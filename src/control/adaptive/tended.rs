//! The controllers of the replica that controls, and what they have to write.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::board::Signals;
use crate::adaptive::{Controller, Form, Second, Step, Terms};
use crate::control::registry::{Change, Expect};
use crate::control::writer::Writer;
use crate::domain::{Timestamp, WHOLE};
use crate::limits::{Scale, ScaleKey, ScaleSource};
use crate::policy::Rule;
use crate::telemetry::escape::escape;

/// The time after which a scale ends without news.
const LASTS_US: u64 = 60_000_000;

/// The rest of that time at which a scale that stays is written again.
const RENEWED_BEFORE_US: u64 = 40_000_000;

/// The time between two log lines about one rule.
const SAID_EVERY_US: u64 = 10_000_000;

/// The controllers by the numbers of their rules.
#[derive(Debug, Default)]
pub(super) struct Tended(HashMap<u32, One>);

#[derive(Debug)]
struct One {
    key: ScaleKey,
    form: Form,
    controller: Controller,
    blind: bool,
    /// The reason for the last cut.
    reason: String,
    said: Timestamp,
}

impl Tended {
    /// Shows every controller what was seen of its rule in a second, and returns the scales that
    /// have changed.
    pub(super) fn observe(
        &mut self,
        writer: &Writer,
        seen: &Signals,
        now: Timestamp,
    ) -> Vec<Change> {
        let snapshot = writer.shared().policies.current();
        let rules = snapshot.policies.rules().iter();
        let adaptive: Vec<(u32, &Arc<Rule>, Terms)> =
            rules.filter_map(|rule| Some((rule.number(), rule, rule.adaptive?))).collect();
        self.0.retain(|number, _| adaptive.iter().any(|(known, ..)| known == number));
        let mut changes = Vec::new();
        for (number, rule, terms) in adaptive {
            let key = ScaleKey {
                source: ScaleSource::Controller,
                domain: Arc::clone(&rule.domain),
                rule: rule.label.as_str().into(),
            };
            let stored = writer.scale(&key).filter(|scale| !scale.has_ended(now));
            let one = self.one(number, rule, terms, (key, stored.as_ref()));
            let none = Second::default();
            let second = seen.get(&number).unwrap_or(&none);
            let step = one.controller.observe(second, Duration::from_secs(1));
            one.say(step, now);
            changes.extend(one.change(step, stored.as_ref(), now));
        }
        let name = |text: &str| escape(text.as_bytes()).to_string();
        let series =
            self.0.values().map(|one| (name(&one.key.domain), name(&one.key.rule), one.blind));
        writer.shared().metrics.policies.show_blind(series);
        changes
    }

    /// The controller of a rule. A new one goes on from the scale that is stored.
    fn one(
        &mut self,
        number: u32,
        rule: &Rule,
        terms: Terms,
        (key, stored): (ScaleKey, Option<&Scale>),
    ) -> &mut One {
        let form = rule.per_second().map_or(Form::Relative, |per_second| Form::Rate { per_second });
        let scale = stored.map_or(WHOLE, |scale| scale.per_mille);
        let reason = stored.map(|scale| scale.reason.clone()).unwrap_or_default();
        let make = |said| One {
            key: key.clone(),
            form,
            controller: Controller::new(terms, form, scale),
            blind: false,
            reason: reason.clone(),
            said,
        };
        let one = self.0.entry(number).or_insert_with(|| make(Timestamp::EPOCH));
        if *one.controller.terms() != terms || one.form != form {
            *one = make(one.said);
        }
        one
    }
}

impl One {
    /// Logs a cut, and that nothing is known, at most once in ten seconds.
    fn say(&mut self, step: Step, now: Timestamp) {
        let was_blind = std::mem::replace(&mut self.blind, step.blind);
        if let Some(cause) = step.cut {
            cause.text().clone_into(&mut self.reason);
        }
        let is_news = step.cut.is_some() || (step.blind && !was_blind);
        if !is_news || now.micros_since(self.said) < SAID_EVERY_US {
            return;
        }
        self.said = now;
        let (domain, rule) = (escape(self.key.domain.as_bytes()), escape(self.key.rule.as_bytes()));
        if step.blind {
            tracing::warn!(
                %domain, %rule,
                "the rule does not adapt: requests are admitted, and no ends of requests are \
                 reported; see docs/adaptive.md"
            );
        } else {
            let percent = f64::from(step.scale) / 10.0;
            let (reason, shadow) = (&self.reason, self.controller.terms().shadow);
            tracing::warn!(%domain, %rule, percent, %reason, shadow, "the rule is turned down");
        }
    }

    /// The record that has changed, if it has.
    fn change(&self, step: Step, stored: Option<&Scale>, now: Timestamp) -> Option<Change> {
        // It ends by itself: nothing is known.
        if step.blind {
            return None;
        }
        let key = self.key.record_key();
        if step.scale == WHOLE {
            let value = None;
            return stored.map(|_| Change { key, expect: Expect::Anything, value });
        }
        let shadow = self.controller.terms().shadow;
        let stays = stored.is_some_and(|stored| {
            let rest = stored.expires_at.map_or(0, |at| at.micros_since(now));
            let is_same = (stored.per_mille, stored.shadow) == (step.scale, shadow);
            is_same && rest > RENEWED_BEFORE_US
        });
        if stays {
            return None;
        }
        let scale = Scale {
            per_mille: step.scale,
            expires_at: Some(now.plus_micros(LASTS_US)),
            reason: self.reason.clone(),
            shadow,
            updated_at: now,
            revision: 0,
        };
        let value = Some(scale.to_record().ok()?);
        Some(Change { key, expect: Expect::Anything, value })
    }
}
