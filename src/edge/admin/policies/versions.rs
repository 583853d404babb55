//! The versions of a policy: each write keeps the policy that it replaces, in the same step, and
//! drops versions beyond the last [`MAX_VERSIONS`].

use std::sync::Arc;

use tonic::Status;

use super::{Policies, missing};
use crate::control::audit::{self, Attempt};
use crate::control::layered::Origin;
use crate::control::record::{StoredPolicy, policy_key, version_key};
use crate::control::registry::{Change, Expect, Record, Registry, RegistryError};
use crate::edge::admin::clients::stale;
use crate::edge::admin::convert;
use crate::edge::admin::identity::Who;
use crate::edge::admin::service::{corrupt, failed};
use crate::edge::pb::tollgate::v1 as pb;
use crate::store::LimitStore;
use crate::telemetry::escape::escape;

/// The versions of a domain that are kept, the one in force included.
const MAX_VERSIONS: usize = 20;

/// The attempts at a write without an etag while others change the same policy.
const MAX_RACES: usize = 8;

/// A version as the registry has it.
pub(in crate::edge::admin) struct Kept {
    pub(in crate::edge::admin) stored: StoredPolicy,
    pub(in crate::edge::admin) version: u64,
    /// It is applied now.
    pub(in crate::edge::admin) current: bool,
}

impl<R: Registry, S: LimitStore> Policies<R, S> {
    /// The version of a domain's policy; 0: that applied now.
    pub(in crate::edge::admin) async fn kept(
        &self,
        domain: &str,
        version: u64,
    ) -> Result<Kept, Status> {
        let current = self.0.read(&policy_key(domain)).await?;
        let read = |record: &Record| StoredPolicy::read(&record.value).map_err(|e| corrupt(&e));
        match &current {
            Some(record) if version == 0 || record.revision == version => {
                Ok(Kept { stored: read(record)?, version: record.revision, current: true })
            }
            None if version == 0 => Err(missing()),
            _ => {
                let record = self.0.read(&version_key(domain, version)).await?.ok_or_else(|| {
                    Status::not_found(format!(
                        "version: {version} is not kept; ListPolicyVersions lists those that are"
                    ))
                })?;
                Ok(Kept { stored: read(&record)?, version, current: false })
            }
        }
    }

    pub(in crate::edge::admin) async fn versions(
        &self,
        domain: &str,
    ) -> Result<pb::ListPolicyVersionsResponse, Status> {
        let stale = self.0.read_once().await?;
        let layered = self.0.layered();
        let applied = layered.offers(Origin::Registry).find(|(of, _)| ***of == *domain);
        let current = applied.map(|(_, offer)| pb::PolicyVersion {
            version: offer.since.version,
            updated_at: Some(convert::timestamp(offer.since.at)),
            bytes: offer.text().len() as u64,
            current: true,
        });
        let kept = self.0.control.writer().versions(domain).into_iter().rev();
        let earlier = kept.map(|(version, kept)| pb::PolicyVersion {
            version,
            updated_at: Some(convert::timestamp(kept.updated_at)),
            bytes: kept.bytes as u64,
            current: false,
        });
        let versions = current.into_iter().chain(earlier).collect();
        Ok(pb::ListPolicyVersionsResponse { versions, warnings: stale.into_iter().collect() })
    }

    /// Stores a policy, or deletes it, and returns the revision of the write.
    pub(in crate::edge::admin) async fn store(
        &self,
        who: &Who,
        action: &'static str,
        domain: &Arc<str>,
        stored: Option<&StoredPolicy>,
        expect: Expect,
    ) -> Result<u64, Status> {
        let mut races = 0;
        loop {
            let found = self.0.read(&policy_key(domain)).await?;
            let revision = found.as_ref().map(|record| record.revision);
            match expect {
                Expect::Revision(wanted) if revision != Some(wanted) => {
                    return Err(if revision.is_none() && stored.is_none() {
                        missing()
                    } else {
                        stale(revision, "etag")
                    });
                }
                Expect::Present if found.is_none() => return Err(missing()),
                _ => {}
            }
            let title = escape(domain.as_bytes()).to_string();
            let after = stored.map_or_else(|| audit::NOTHING.into(), audit::policy_state);
            let attempt = Attempt::by(who).and(action, title, after, audit::policy_record);
            let changes = self.changes(domain, found, stored)?;
            match self.0.write(attempt, changes).await {
                Ok(written) => return Ok(written.mark.revision),
                Err(RegistryError::Conflict { .. })
                    if races < MAX_RACES && !matches!(expect, Expect::Revision(_)) =>
                {
                    races += 1;
                }
                Err(RegistryError::Conflict { found, .. }) => return Err(stale(found, "etag")),
                Err(error) => return Err(failed(&error)),
            }
        }
    }

    /// The changes of a write in the place of `found`: that of the policy first.
    fn changes(
        &self,
        domain: &Arc<str>,
        found: Option<Record>,
        stored: Option<&StoredPolicy>,
    ) -> Result<Vec<Change>, Status> {
        let value = stored.map(StoredPolicy::write).transpose().map_err(|e| corrupt(&e))?;
        let expect =
            found.as_ref().map_or(Expect::Absent, |found| Expect::Revision(found.revision));
        let mut changes = vec![Change { key: policy_key(domain), expect, value }];
        let mut kept: Vec<u64> = self.0.control.writer().versions(domain).into_keys().collect();
        let change = |revision, value| Change {
            key: version_key(domain, revision),
            expect: Expect::Anything,
            value,
        };
        if let Some(Record { value, revision }) = found {
            kept.retain(|kept| *kept != revision);
            kept.push(revision);
            changes.push(change(revision, Some(value)));
        }
        let surplus = (kept.len() + usize::from(stored.is_some())).saturating_sub(MAX_VERSIONS);
        changes.extend(kept.into_iter().take(surplus).map(|oldest| change(oldest, None)));
        Ok(changes)
    }
}
