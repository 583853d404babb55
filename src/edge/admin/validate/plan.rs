//! Validates plans, and the plan that a client names.

use super::{Validator, Wrong};
use crate::control::registry::Expect;
use crate::edge::pb::tollgate::v1 as pb;
use crate::limits::plan::{MAX_NAME_BYTES, is_name};
use crate::limits::{Membership, Plan, PlanKey};

impl Validator<'_> {
    /// The plan of `message`, which stands in the field `at`, and what must be there for it to be
    /// stored.
    pub(in crate::edge::admin) fn plan(
        &mut self,
        message: pb::Plan,
        at: &str,
    ) -> Option<(Plan, Expect)> {
        let key = self.plan_key(&message.domain, &message.name, at);
        let limits = self.limits(&message.limits, &format!("{at}.limits"));
        let metadata = self.metadata(message.metadata, &format!("{at}.metadata"));
        let labels = self.labels(message.labels, &format!("{at}.labels"));
        let expect = self.etag(&message.etag, &format!("{at}.etag"));
        let PlanKey { domain, name } = key?;
        let plan = Plan {
            domain,
            name,
            limits: limits?,
            metadata: metadata.ok()?,
            labels: labels.ok().map(|labels| (!labels.is_empty()).then(|| Box::new(labels)))?,
            updated_at: self.now,
            revision: 0,
        };
        Some((plan, expect?))
    }

    /// The name of a plan by the fields below `at`; empty: those of the request itself.
    pub(in crate::edge::admin) fn plan_key(
        &mut self,
        domain: &str,
        name: &str,
        at: &str,
    ) -> Option<PlanKey> {
        let field =
            |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
        let domain = self.domain(domain, &field("domain"));
        let named = self.plan_name(name, &field("name"));
        Some(PlanKey { domain: domain?, name: named.ok()?.into() })
    }

    fn plan_name<'n>(&mut self, name: &'n str, at: &str) -> Result<&'n str, Wrong> {
        if is_name(name) {
            return Ok(name);
        }
        let found = if name.is_empty() { "must not be empty" } else { "is no name of a plan" };
        let expected = format!("1 to {MAX_NAME_BYTES} ASCII letters, digits, `.`, `_` and `-`");
        self.violations.add(at, format!("{found}: expected {expected}"));
        Err(Wrong)
    }

    /// The plan that a client names.
    pub(in crate::edge::admin) fn membership(
        &mut self,
        pb::Client { plan, plan_expires_at, plan_then, limits, .. }: &pb::Client,
        at: &str,
    ) -> Result<Option<Membership>, Wrong> {
        if plan.is_empty() {
            let given = [
                ("plan_expires_at", plan_expires_at.is_some()),
                ("plan_then", !plan_then.is_empty()),
            ];
            let mut given = given.iter().filter(|(_, given)| *given).peekable();
            let clean = given.peek().is_none();
            given.for_each(|(field, _)| {
                self.violations.add(format!("{at}.{field}"), "means nothing without plan");
            });
            return if clean { Ok(None) } else { Err(Wrong) };
        }
        if limits.iter().any(|limit| limit.unlimited) {
            let expected = "means that nothing limits the client; leave out the plan, or this";
            self.violations.add(format!("{at}.limits"), expected);
        }
        let name = self.plan_name(plan, &format!("{at}.plan"));
        let ends_at = match plan_expires_at {
            None => Ok(None),
            Some(time) => {
                let ends_at = self.future(
                    time,
                    "to end it now, write another plan",
                    &format!("{at}.plan_expires_at"),
                );
                ends_at.map(Some).ok_or(Wrong)
            }
        };
        let then = match plan_then.as_str() {
            "" => Ok(None),
            _ if plan_expires_at.is_none() => {
                let expected = "means nothing without plan_expires_at";
                self.violations.add(format!("{at}.plan_then"), expected);
                Err(Wrong)
            }
            then => self.plan_name(then, &format!("{at}.plan_then")).map(Some),
        };
        let (name, ends_at, then) = (name?.into(), ends_at?, then?.map(Into::into));
        Ok(Some(Membership { name, ends_at, then }))
    }
}
