//! From a longest wait as written to a limit whose hits wait.

use std::time::Duration;

use super::super::report::Report;
use super::super::schema::{self, Given};
use crate::domain::{Algorithm, Charge, Limit};

const SHORTEST: Duration = Duration::from_millis(1);

/// `limit` with the longest wait that is written beside it, if there is one.
///
/// # Errors
/// Faults, which have been reported.
pub(super) fn compile(
    written: &schema::Limit,
    limit: Limit,
    report: &mut Report<'_>,
) -> Result<Limit, ()> {
    let Some(Given { key_at, at, value }) = written.max_wait.0 else { return Ok(limit) };
    let max_wait = value.ok_or(())?;
    let bucket = matches!(limit.algorithm(), Algorithm::TokenBucket { .. });
    if !bucket || limit.charge() != Charge::Admitted || limit.requests() == 0 {
        let hint = "max_wait needs algorithm: token_bucket, charge: admitted, and \
                    requests_per_unit above 0";
        report.fault_with(key_at, "max_wait beside a limit that cannot wait", hint.to_owned());
        return Err(());
    }
    if written.lease.is_some() {
        let hint = "remove one of them: whoever holds a lease does not know the wait".to_owned();
        report.fault_with(key_at, "max_wait beside lease", hint);
        return Err(());
    }
    if !(SHORTEST..=Limit::MAX_WAIT).contains(&max_wait) {
        let longest = Limit::MAX_WAIT;
        let message =
            format!("max_wait must be from {SHORTEST:?} to {longest:?}, found {max_wait:?}");
        let hint = "it is how long a request may wait for its turn, such as 2s".to_owned();
        report.fault_with(at, message, hint);
        return Err(());
    }
    Ok(limit.waiting(max_wait))
}
