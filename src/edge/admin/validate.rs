//! Validates what operators write about clients and plans: every fault with the path of its field.

mod plan;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::convert::{algorithm_from_pb, is_below, timestamp_from_pb, to_json, unit_from_pb};
use super::violations::Violations;
use crate::control::registry::Expect;
use crate::domain::{LimitError, Timestamp, Unit};
use crate::edge::pb::tollgate::v1 as pb;
use crate::limiter::request::Bounds;
use crate::limits::name::HASH_DIGITS;
use crate::limits::{self, Client, ClientLimit, ClientName, Entries, Limits, Model, Rate};
use crate::policy::{
    AlgorithmName, Defaults, LONGEST_NAME, MAX_METADATA_BYTES, MAX_METADATA_LEVELS, OnStoreFailure,
    fits_header,
};

const MOST_LIMITS: usize = 16;
const MOST_LABELS: usize = 16;
const LONGEST_LABEL: usize = 63;

/// A hash as answers show it.
fn is_hash(value: &str) -> bool {
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    value.len() == HASH_DIGITS && value.bytes().all(digit)
}

/// Said already, as a violation.
pub(super) struct Wrong;

/// Checks messages of one request.
pub(super) struct Validator<'a> {
    /// No request beyond these is looked at, so neither is a client.
    pub(super) bounds: &'a Bounds,
    /// The present.
    pub(super) now: Timestamp,
    pub(super) violations: Violations,
}

impl Validator<'_> {
    /// The client of `message`, which stands in the field `at`, and what must be there for it to be
    /// stored.
    pub(super) fn client(&mut self, message: pb::Client, at: &str) -> Option<(Client, Expect)> {
        let plan = self.membership(&message, at);
        let name = self.name(&message.domain, message.entries, at);
        let limits = if message.limits.is_empty() && !message.plan.is_empty() {
            Some(Limits::default())
        } else {
            self.limits(&message.limits, &format!("{at}.limits"))
        };
        let metadata = self.metadata(message.metadata, &format!("{at}.metadata"));
        let labels = self.labels(message.labels, &format!("{at}.labels"));
        let expires_at = match &message.expires_at {
            None => Some(None),
            Some(time) => self.expiry(time, &format!("{at}.expires_at")).map(Some),
        };
        let expect = self.etag(&message.etag, &format!("{at}.etag"));
        let client = Client {
            name: name?,
            limits: limits?,
            plan: plan.ok()?.map(Arc::new),
            shadow: message.shadow_mode,
            quota: message.quota_mode,
            metadata: metadata.ok()?,
            labels: labels.ok().map(|labels| (!labels.is_empty()).then(|| Box::new(labels)))?,
            expires_at: expires_at?,
            updated_at: self.now,
            revision: 0,
        };
        Some((client, expect?))
    }

    /// The name of a client, and what must be there.
    pub(super) fn client_name(
        &mut self,
        message: Option<pb::ClientName>,
        at: &str,
    ) -> Option<(ClientName, Expect)> {
        let Some(message) = message else {
            self.violations.add(at, "is required: the domain and the entries of a client");
            return None;
        };
        let name = self.name(&message.domain, message.entries, at);
        let expect = self.etag(&message.etag, &format!("{at}.etag"));
        Some((name?, expect?))
    }

    fn name(&mut self, domain: &str, entries: Vec<pb::Entry>, at: &str) -> Option<ClientName> {
        let domain = self.domain(domain, &format!("{at}.domain"));
        let at = format!("{at}.entries");
        let before = entries.len();
        if entries.is_empty() {
            self.violations.add(&at, "are required: the whole descriptor of the client, in order");
            return None;
        }
        if before > self.bounds.entries {
            let most = self.bounds.entries;
            let found = format!("found {before}, but a request may have {most}");
            self.violations.add(&at, found);
            return None;
        }
        let mut good = Vec::with_capacity(before);
        for (i, pb::Entry { key, value, hashed }) in entries.into_iter().enumerate() {
            let key_fits = self.text(&key, self.bounds.key_bytes, &format!("{at}[{i}].key"));
            if key.is_empty() {
                self.violations.add(format!("{at}[{i}].key"), "must not be empty");
            } else if key_fits
                && self.text(&value, self.bounds.value_bytes, &format!("{at}[{i}].value"))
            {
                if hashed && !is_hash(&value) {
                    let expected = "is no hash: expected 32 hexadecimal digits in lower case";
                    self.violations.add(format!("{at}[{i}].value"), expected);
                    continue;
                }
                good.push((key, value, hashed));
            }
        }
        let whole = good.len() == before;
        let domain = domain?;
        let entries = good.iter().map(|(key, value, hashed)| {
            (key.as_bytes(), limits::name::Value { bytes: value.as_bytes(), hashed: *hashed })
        });
        whole.then(|| ClientName { domain, entries: Entries::of(entries) })
    }

    /// A domain that is required.
    pub(super) fn domain(&mut self, domain: &str, at: &str) -> Option<Arc<str>> {
        if domain.is_empty() {
            self.violations.add(at, "must not be empty");
            return None;
        }
        self.text(domain, self.bounds.key_bytes, at).then(|| domain.into())
    }

    fn text(&mut self, text: &str, most: usize, at: &str) -> bool {
        if text.len() > most {
            let found = format!("has {} bytes, but a request may have {most}", text.len());
            self.violations.add(at, found);
        }
        text.len() <= most
    }

    /// The record that must be there, by the etag; an empty etag expects nothing.
    pub(super) fn etag(&mut self, etag: &str, at: &str) -> Option<Expect> {
        if etag.is_empty() {
            return Some(Expect::Anything);
        }
        let revision = etag.parse().ok().filter(|revision: &u64| revision.to_string() == etag);
        if revision.is_none() {
            self.violations.add(at, "is no etag; use the one of an answer, or none");
        }
        revision.map(Expect::Revision)
    }

    fn expiry(&mut self, time: &prost_types::Timestamp, at: &str) -> Option<Timestamp> {
        self.future(time, "to end a client now, delete it", at)
    }

    /// A time in the future; `hint` says how to get what one in the past may mean.
    pub(super) fn future(
        &mut self,
        time: &prost_types::Timestamp,
        hint: &str,
        at: &str,
    ) -> Option<Timestamp> {
        let Some(expires_at) = timestamp_from_pb(time) else {
            self.violations.add(at, "must be between 1970 and 9999, with nanos below 10^9");
            return None;
        };
        if expires_at <= self.now {
            self.violations.add(at, format!("must be in the future; {hint}"));
            return None;
        }
        Some(expires_at)
    }

    fn labels(
        &mut self,
        labels: BTreeMap<String, String>,
        at: &str,
    ) -> Result<BTreeMap<String, String>, Wrong> {
        let mut clean = labels.len() <= MOST_LABELS;
        if !clean {
            self.violations.add(at, format!("found {}, at most {MOST_LABELS}", labels.len()));
        }
        for (key, value) in &labels {
            if key.is_empty() || key.len() > LONGEST_LABEL {
                let length = key.len();
                let expected = format!("a key has {length} bytes, expected 1 to {LONGEST_LABEL}");
                self.violations.add(at, expected);
                clean = false;
            } else if value.len() > LONGEST_LABEL {
                let found = format!("has {} bytes, at most {LONGEST_LABEL}", value.len());
                self.violations.add(format!("{at}[{key:?}]"), found);
                clean = false;
            }
        }
        if clean { Ok(labels) } else { Err(Wrong) }
    }

    fn metadata(
        &mut self,
        metadata: Option<prost_types::Struct>,
        at: &str,
    ) -> Result<Option<Arc<Map<String, Value>>>, Wrong> {
        let Some(metadata) = metadata else { return Ok(None) };
        if is_below(&metadata, MAX_METADATA_LEVELS) {
            let found = format!("may be nested {MAX_METADATA_LEVELS} levels deep, no deeper");
            self.violations.add(at, found);
            return Err(Wrong);
        }
        let Some(map) = to_json(metadata) else {
            self.violations.add(at, "has a number that is not finite");
            return Err(Wrong);
        };
        let bytes = serde_json::to_vec(&map).map_or(usize::MAX, |text| text.len());
        if bytes > MAX_METADATA_BYTES {
            let found = format!("has {bytes} bytes as JSON, at most {MAX_METADATA_BYTES}");
            self.violations.add(at, found);
            return Err(Wrong);
        }
        Ok(Some(Arc::new(map)))
    }

    fn limits(&mut self, limits: &[pb::Limit], at: &str) -> Option<Limits> {
        if limits.is_empty() || limits.len() > MOST_LIMITS {
            let found = limits.len();
            let hint = "; for no limit write {\"unlimited\": true}";
            self.violations.add(at, format!("found {found}, expected 1 to {MOST_LIMITS}{hint}"));
            return None;
        }
        let several = limits.len() > 1;
        let mut good: Vec<Option<ClientLimit>> = Vec::with_capacity(limits.len());
        for (i, limit) in limits.iter().enumerate() {
            let at_limit = format!("{at}[{i}]");
            if limit.unlimited && several {
                let alone = "an unlimited limit stands alone";
                self.violations.add(format!("{at_limit}.unlimited"), alone);
            }
            let limit = self.limit(limit, &at_limit);
            let same = |other: &Option<ClientLimit>| {
                other.as_ref().zip(limit.as_ref()).is_some_and(|(o, l)| o.may_share_counter(l))
            };
            if let Some(other) = good.iter().position(same) {
                let what = "is over the same period as";
                let hint = "with the same algorithm, or one of them left open";
                self.violations.add(&at_limit, format!("{what} limits[{other}], {hint}"));
            }
            good.push(limit);
        }
        good.into_iter().collect()
    }

    fn limit(&mut self, limit: &pb::Limit, at: &str) -> Option<ClientLimit> {
        let name = self.limit_name(&limit.name, &format!("{at}.name"));
        let rate = if limit.unlimited {
            self.unlimited(limit, at).then_some(None)
        } else {
            self.rate(limit, at).map(Some)
        };
        Some(ClientLimit { name: name.ok()?, rate: rate? })
    }

    fn limit_name(&mut self, name: &str, at: &str) -> Result<Option<Arc<str>>, Wrong> {
        if !fits_header(name) {
            let expected = "use printable ASCII without quotes, backslash, comma and semicolon";
            self.violations.add(at, expected);
            return Err(Wrong);
        }
        if name.len() > LONGEST_NAME {
            self.violations.add(at, format!("is longer than {LONGEST_NAME} bytes"));
            return Err(Wrong);
        }
        Ok((!name.is_empty()).then(|| name.into()))
    }

    fn unlimited(&mut self, limit: &pb::Limit, at: &str) -> bool {
        let given = [
            ("requests_per_unit", limit.requests_per_unit() != 0),
            ("unit", limit.unit != 0),
            ("unit_multiplier", limit.unit_multiplier != 0),
            ("algorithm", limit.algorithm != 0),
            ("burst", limit.burst != 0),
            ("slots", limit.slots != 0),
            ("charge", limit.charge != 0),
            ("max_debt", limit.max_debt.is_some()),
            ("on_store_failure", limit.on_store_failure != 0),
        ];
        let mut clean = true;
        for (field, _) in given.iter().filter(|(_, given)| *given) {
            self.violations.add(format!("{at}.{field}"), "means nothing beside unlimited: true");
            clean = false;
        }
        clean
    }

    fn rate(&mut self, limit: &pb::Limit, at: &str) -> Option<Rate> {
        let unit = self.unit(limit.unit, &format!("{at}.unit"));
        let multiplier = self.multiplier(limit.unit_multiplier, unit, at);
        let algorithm = self.known(limit.algorithm, &format!("{at}.algorithm"));
        let charge = self.known(limit.charge, &format!("{at}.charge"));
        self.refuse_words_of_policies(limit, at);
        let failure = self.known(limit.on_store_failure, &format!("{at}.on_store_failure"));
        let algorithm = algorithm.map(algorithm_from_pb);
        let fits = match (algorithm, charge) {
            (Some(algorithm), Some(charge)) => self.options(limit, algorithm, charge, at),
            _ => false,
        };
        let charge = charge?;
        let rate = Rate {
            requests_per_unit: limit.requests_per_unit(),
            unit: unit?,
            unit_multiplier: multiplier?,
            algorithm: algorithm?,
            burst: NonZeroU32::new(limit.burst),
            slots: NonZeroU32::new(limit.slots),
            always: match charge {
                pb::Charge::Unspecified | pb::Charge::Settled | pb::Charge::Held => None,
                pb::Charge::Admitted => Some(false),
                pb::Charge::Always => Some(true),
            },
            settled: charge == pb::Charge::Settled,
            max_debt: limit.max_debt,
            on_store_failure: match failure? {
                pb::OnStoreFailure::Unspecified => None,
                pb::OnStoreFailure::Local => Some(OnStoreFailure::Local),
                pb::OnStoreFailure::Allow => Some(OnStoreFailure::Allow),
                pb::OnStoreFailure::Deny => Some(OnStoreFailure::Deny),
                pb::OnStoreFailure::Error => Some(OnStoreFailure::Error),
            },
        };
        (fits && self.counts(&rate, at)).then_some(rate)
    }

    /// A client takes these from its rule.
    fn refuse_words_of_policies(&mut self, limit: &pb::Limit, at: &str) {
        if limit.algorithm() == pb::Algorithm::Concurrency {
            let text = "only policies set CONCURRENCY; leave it out where the rule has it";
            self.violations.add(format!("{at}.algorithm"), text);
        }
        if limit.charge() == pb::Charge::Held {
            let text = "only policies set HELD; leave it out where the rule has it";
            self.violations.add(format!("{at}.charge"), text);
        }
    }

    fn unit(&mut self, unit: i32, at: &str) -> Option<Unit> {
        let known: pb::Unit = self.known(unit, at)?;
        let unit = unit_from_pb(known);
        if unit.is_none() {
            self.violations.add(at, "is required: SECOND, MINUTE, HOUR, DAY, WEEK, MONTH or YEAR");
        }
        unit
    }

    fn multiplier(&mut self, multiplier: u32, unit: Option<Unit>, at: &str) -> Option<u32> {
        let multiplier = multiplier.max(1);
        let unit = unit.unwrap_or(Unit::Second);
        if unit.period(multiplier).is_none() {
            let most = Unit::MAX_PERIOD.as_secs() / unit.seconds();
            let expected =
                format!("found {multiplier}, at most {most}: a period is at most ten years");
            self.violations.add(format!("{at}.unit_multiplier"), expected);
            return None;
        }
        Some(multiplier)
    }

    /// A word by its number.
    fn known<T: TryFrom<i32>>(&mut self, number: i32, at: &str) -> Option<T> {
        let known = T::try_from(number).ok();
        if known.is_none() {
            self.violations.add(at, format!("has no value {number}"));
        }
        known
    }

    /// Checks that every option belongs to the algorithm and the charge, which must be given with
    /// it.
    fn options(
        &mut self,
        limit: &pb::Limit,
        algorithm: Option<AlgorithmName>,
        charge: pb::Charge,
        at: &str,
    ) -> bool {
        let bucket = algorithm == Some(AlgorithmName::TokenBucket);
        let sliding = algorithm == Some(AlgorithmName::SlidingWindow);
        let post_paid = bucket && matches!(charge, pb::Charge::Always | pb::Charge::Settled);
        let misfits = [
            ("burst", limit.burst != 0 && !bucket, "algorithm TOKEN_BUCKET"),
            ("slots", limit.slots != 0 && !sliding, "algorithm SLIDING_WINDOW"),
            (
                "max_debt",
                limit.max_debt.is_some() && !post_paid,
                "algorithm TOKEN_BUCKET, and charge ALWAYS or SETTLED",
            ),
        ];
        let mut fits = true;
        for (field, _, needs) in misfits.iter().filter(|(_, misfit, _)| *misfit) {
            self.violations.add(format!("{at}.{field}"), format!("needs {needs}, written with it"));
            fits = false;
        }
        fits
    }

    /// Checks that the numbers can be counted, whatever the rule says of the options left open.
    fn counts(&mut self, rate: &Rate, at: &str) -> bool {
        let algorithm = rate.algorithm.unwrap_or(AlgorithmName::TokenBucket);
        let defaults = Defaults { algorithm, ..Defaults::default() };
        let Err(error) = rate.limit(&Model { limit: None, defaults }) else { return true };
        let field = match error {
            LimitError::Period => "unit",
            LimitError::Fill | LimitError::Burst => "burst",
            LimitError::Slots => "slots",
        };
        self.violations.add(format!("{at}.{field}"), error.to_string());
        false
    }
}
