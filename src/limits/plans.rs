//! The plans of a directory by small numbers: a client has the number, and the number leads to the
//! limits, so that a changed plan touches none of its clients.
//!
//! Decisions read the table without a lock. As with policies, each thread keeps a `TableRef` with
//! a count of references of its own, because a count that all cores write is slow.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, Deref};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::plan::{Membership, Plan, PlanKey, PlanName};

/// Plans by number; none: clients name the plan, and it is not there.
type Table = Box<[Option<Arc<Plan>>]>;

/// All plans, and the number of clients that name each.
#[derive(Debug, Default)]
pub struct Plans {
    slots: Mutex<Slots>,
    /// The plans of `slots`. Written under its lock.
    table: ArcSwap<Table>,
}

/// The slots of plans that are there, or that clients name.
#[derive(Debug, Default)]
struct Slots {
    by_number: Vec<Option<Slot>>,
    numbers: BTreeMap<Arc<str>, BTreeMap<Arc<str>, u32>>,
    /// Numbers that have no slot.
    free: Vec<u32>,
    /// The clients whose plan has an end.
    with_end: usize,
}

#[derive(Debug)]
struct Slot {
    key: PlanKey,
    /// The membership that all clients of the plan share which have no end.
    endless: Arc<Membership>,
    /// The clients that name the plan.
    clients: usize,
    plan: Option<Arc<Plan>>,
}

/// A plan of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The clients that name it, now or after the end of another one.
    pub clients: usize,
}

/// A page of a list.
#[derive(Clone, Debug, Default)]
pub struct PlanPage {
    /// The plans of this page, in the order of domain and name.
    pub plans: Vec<Listed>,
    /// True if more plans follow.
    pub more: bool,
}

impl Plans {
    /// The plan of a client's name for it, as it is in force; none: there is no such plan.
    pub fn find(&self, name: &PlanName) -> Option<PlanRef> {
        let table = self.table();
        let plan = table.get(name.number as usize)?.as_ref()?;
        // The number may be that of another plan by now.
        Arc::ptr_eq(&plan.name, &name.text).then_some(PlanRef { number: name.number, table })
    }

    /// The plan of this name.
    pub fn get(&self, key: &PlanKey) -> Option<Listed> {
        let slots = self.slots.lock();
        slots.slot(slots.number(key)?)?.listed()
    }

    /// The number of clients that name a plan.
    pub fn clients_of(&self, key: &PlanKey) -> usize {
        let slots = self.slots.lock();
        slots.number(key).and_then(|number| slots.slot(number)).map_or(0, |slot| slot.clients)
    }

    /// The number of clients whose plan has an end.
    pub fn clients_with_end(&self) -> usize {
        self.slots.lock().with_end
    }

    /// The number of plans.
    pub fn len(&self) -> usize {
        self.table.load().iter().flatten().count()
    }

    /// True if there are no plans.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Inserts a plan, or replaces the one of the same name. Takes the same time however many
    /// clients have it.
    pub fn put(&self, mut plan: Plan) {
        let mut slots = self.slots.lock();
        let number = slots.number_or_new(&plan.domain, &plan.name);
        let Some(slot) = slots.slot_mut(number) else { return };
        plan.domain = Arc::clone(&slot.key.domain);
        plan.name = Arc::clone(&slot.key.name);
        slot.plan = Some(Arc::new(plan));
        self.publish(&slots);
    }

    /// Removes a plan. Clients that name it have none.
    pub fn remove(&self, key: &PlanKey) {
        let mut slots = self.slots.lock();
        let Some(number) = slots.number(key) else { return };
        if let Some(slot) = slots.slot_mut(number) {
            slot.plan = None;
        }
        slots.tidy(number);
        self.publish(&slots);
    }

    /// Removes the plans for which `keep` returns false.
    pub fn retain(&self, keep: impl Fn(&PlanKey) -> bool) {
        let all: Vec<PlanKey> = self.table.load().iter().flatten().map(|plan| plan.key()).collect();
        for key in all.iter().filter(|key| !keep(key)) {
            self.remove(key);
        }
    }

    /// Returns at most `size` plans after `after`, of `domain` or of all domains.
    pub fn page(&self, domain: Option<&str>, after: Option<&PlanKey>, size: usize) -> PlanPage {
        let slots = self.slots.lock();
        let first = domain.or(after.map(|after| &*after.domain)).unwrap_or_default();
        let domains = slots.numbers.range::<str, _>((Bound::Included(first), Bound::Unbounded));
        let mut rest = domains
            .take_while(|(of, _)| domain.is_none_or(|domain| ***of == *domain))
            .flat_map(|(_, names)| names.values())
            .filter_map(|number| slots.slot(*number))
            .filter(|slot| after.is_none_or(|after| slot.key > *after))
            .filter_map(Slot::listed);
        let plans = rest.by_ref().take(size).collect();
        PlanPage { plans, more: rest.next().is_some() }
    }

    /// Gives a client's plan its numbers, and counts the client.
    pub(super) fn enter(&self, domain: &str, membership: &Arc<Membership>) -> Arc<Membership> {
        let mut slots = self.slots.lock();
        let name = slots.enter(domain, &membership.name);
        let then = membership.then.as_ref().map(|then| slots.enter(domain, then));
        let ends_at = membership.ends_at;
        slots.with_end += usize::from(ends_at.is_some());
        match slots.slot(name.number) {
            Some(slot) if ends_at.is_none() && then.is_none() => Arc::clone(&slot.endless),
            _ => Arc::new(Membership { name, ends_at, then }),
        }
    }

    /// Takes a client from the count of its plan, which [`Self::enter`] gave it.
    pub(super) fn leave(&self, membership: &Membership) {
        let mut slots = self.slots.lock();
        let had_end = usize::from(membership.ends_at.is_some());
        slots.with_end = slots.with_end.saturating_sub(had_end);
        for name in membership.names() {
            if let Some(slot) = slots.slot_mut(name.number) {
                slot.clients = slot.clients.saturating_sub(1);
            }
            slots.tidy(name.number);
        }
    }

    fn publish(&self, slots: &Slots) {
        let plan = |slot: &Option<Slot>| slot.as_ref().and_then(|slot| slot.plan.clone());
        self.table.store(Arc::new(slots.by_number.iter().map(plan).collect()));
    }

    /// The table in force.
    ///
    /// # Concurrency
    /// Writes only what this thread writes, except on the first call after a change.
    fn table(&self) -> TableRef {
        thread_local!(static HELD: RefCell<Option<TableRef>> = const { RefCell::new(None) });
        let current = self.table.load();
        HELD.with_borrow_mut(|held| match held {
            Some(held) if Arc::ptr_eq(&held.0.0, &current) => held.clone(),
            _ => held.insert(TableRef(Arc::new(Held(Arc::clone(&current))))).clone(),
        })
    }
}

impl Slots {
    fn number(&self, key: &PlanKey) -> Option<u32> {
        self.numbers.get(&key.domain)?.get(&key.name).copied()
    }

    fn slot(&self, number: u32) -> Option<&Slot> {
        self.by_number.get(number as usize)?.as_ref()
    }

    fn slot_mut(&mut self, number: u32) -> Option<&mut Slot> {
        self.by_number.get_mut(number as usize)?.as_mut()
    }

    /// Counts a client that names a plan; the name with its number.
    fn enter(&mut self, domain: &str, name: &PlanName) -> PlanName {
        let number = self.number_or_new(domain, &name.text);
        match self.slot_mut(number) {
            None => name.clone(),
            Some(slot) => {
                slot.clients += 1;
                slot.endless.name.clone()
            }
        }
    }

    fn number_or_new(&mut self, domain: &str, name: &str) -> u32 {
        let known = self.numbers.get_key_value(domain);
        if let Some(number) = known.and_then(|(_, names)| names.get(name)) {
            return *number;
        }
        let domain = known.map_or_else(|| domain.into(), |(domain, _)| Arc::clone(domain));
        let number = self.free.pop().unwrap_or_else(|| {
            self.by_number.push(None);
            u32::try_from(self.by_number.len() - 1).unwrap_or(u32::MAX)
        });
        let key = PlanKey { domain, name: name.into() };
        let numbered = PlanName { text: Arc::clone(&key.name), number };
        let names = self.numbers.entry(Arc::clone(&key.domain)).or_default();
        names.insert(Arc::clone(&key.name), number);
        if let Some(place) = self.by_number.get_mut(number as usize) {
            let endless = Arc::new(Membership::of(numbered));
            *place = Some(Slot { key, endless, clients: 0, plan: None });
        }
        number
    }

    /// Frees a number that neither a plan nor a client has.
    fn tidy(&mut self, number: u32) {
        let Some(place) = self.by_number.get_mut(number as usize) else { return };
        let unused = |slot: &mut Slot| slot.clients == 0 && slot.plan.is_none();
        let Some(Slot { key, .. }) = place.take_if(unused) else { return };
        self.free.push(number);
        if let Some(names) = self.numbers.get_mut(&key.domain) {
            names.remove(&key.name);
            if names.is_empty() {
                self.numbers.remove(&key.domain);
            }
        }
    }
}

impl Slot {
    fn listed(&self) -> Option<Listed> {
        Some(Listed { plan: Arc::clone(self.plan.as_ref()?), clients: self.clients })
    }
}

/// A table, counted by the thread that began to use it.
#[derive(Clone)]
struct TableRef(Arc<Held>);

/// The process's reference, of which each thread has one.
struct Held(Arc<Table>);

impl Deref for TableRef {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.0.0
    }
}

/// A plan, held by way of its table: a decision counts no reference to a plan, which all cores
/// would write.
#[derive(Clone)]
pub struct PlanRef {
    table: TableRef,
    number: u32,
}

impl Deref for PlanRef {
    type Target = Plan;

    #[expect(clippy::expect_used, clippy::indexing_slicing, reason = "found in this table")]
    fn deref(&self) -> &Plan {
        self.table[self.number as usize].as_deref().expect("the plan is in the table")
    }
}

impl fmt::Debug for PlanRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PlanRef").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests;
