//! From a lease as written to its terms.

use std::time::Duration;

use super::super::report::Report;
use super::super::rule::LeaseTerms;
use super::super::schema::{self, Given};
use crate::domain::lease::MAX_TTL_US;
use crate::domain::{Algorithm, Limit};

/// The share of a bucket that replicas may hold together, unless a policy says otherwise.
const SHARE: f64 = 0.1;

/// The most it may be: the rest is for those who hold no lease.
const LARGEST_SHARE: f64 = 0.5;

const TTL: Duration = Duration::from_millis(50);
const SHORTEST_TTL: Duration = Duration::from_millis(1);

/// The terms of the lease that is written beside `limit`, if there is one.
///
/// # Errors
/// Faults, which have been reported.
pub(super) fn compile(
    written: Option<&Given<schema::Lease>>,
    limit: &Limit,
    report: &mut Report<'_>,
) -> Result<Option<LeaseTerms>, ()> {
    let Some(Given { key_at, value, .. }) = written else { return Ok(None) };
    let Some(lease) = value else { return Err(()) };
    let bucket = matches!(limit.algorithm(), Algorithm::TokenBucket { .. });
    if !bucket || limit.always_charges() || limit.requests() == 0 {
        let hint = "lease needs algorithm: token_bucket, charge: admitted or settled, and \
                    requests_per_unit above 0";
        report.fault_with(*key_at, "lease beside a limit that cannot be leased", hint.to_owned());
        return Err(());
    }
    let (share, ttl) = (share(lease, report), ttl(lease, report));
    // A share of a bucket has 32 bits, as the bucket has.
    let most = (limit.capacity() as f64 * share?).floor() as u64;
    if most == 0 {
        let message = "lease of a bucket so small that its share is less than one hit";
        report.warn(*key_at, message, "raise max_share, or leave lease out");
    }
    Ok(Some(LeaseTerms { most, ttl: ttl? }))
}

fn share(lease: &schema::Lease, report: &mut Report<'_>) -> Result<f64, ()> {
    let share = lease.max_share.or(SHARE).ok_or(())?;
    if share > 0.0 && share <= LARGEST_SHARE {
        return Ok(share);
    }
    let message = format!("max_share must be above 0 and at most {LARGEST_SHARE}, found {share}");
    let hint = "it is the share of the bucket that replicas may hold together, such as 0.1";
    report.fault_with(lease.max_share.at().unwrap_or(lease.at), message, hint.to_owned());
    Err(())
}

fn ttl(lease: &schema::Lease, report: &mut Report<'_>) -> Result<Duration, ()> {
    let ttl = lease.ttl.or(TTL).ok_or(())?;
    let longest = Duration::from_micros(MAX_TTL_US);
    if (SHORTEST_TTL..=longest).contains(&ttl) {
        return Ok(ttl);
    }
    let message = format!("ttl must be from {SHORTEST_TTL:?} to {longest:?}, found {ttl:?}");
    let hint = "it is how long a replica may spend what it holds, such as 50ms";
    report.fault_with(lease.ttl.at().unwrap_or(lease.at), message, hint.to_owned());
    Err(())
}
