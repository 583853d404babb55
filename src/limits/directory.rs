//! The directory of clients in memory, with two indexes: by descriptor for decisions, by name for
//! lists.
//!
//! The registry's follower keeps it up to date; a lookup does no I/O. Expired clients stay in the
//! directory until their records are deleted; the caller checks the expiry.

mod shape;

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use hashbrown::hash_table::Entry as Slot;
use hashbrown::{DefaultHashBuilder, HashMap, HashSet, HashTable};
use parking_lot::{Mutex, RwLock};

use self::shape::Shape;
use super::name::Value;
use super::plans::Plans;
use super::{Client, ClientName, Entries};

/// Number of shards. With many more shards than cores a write blocks few readers, even when it
/// grows a shard.
const SHARDS: usize = 1_024;

/// All clients, indexed by descriptor and by name.
#[derive(Debug)]
pub struct Directory {
    hasher: DefaultHashBuilder,
    shards: Box<[RwLock<HashTable<Arc<Client>>>]>,
    ordered: RwLock<BTreeSet<InOrder>>,
    /// The number of clients of each domain that has any.
    domains: RwLock<HashMap<Arc<str>, usize>>,
    /// The keys of `domains`, sharded by hash. Decisions read them without a lock, because taking
    /// one writes memory that all cores write. Written under the lock of `domains`.
    named: Box<[ArcSwap<HashSet<Arc<str>>>]>,
    /// A 64-bit Bloom filter over `domains` with one [`bit`] per domain. Written under the lock of
    /// `domains`.
    bits: AtomicU64,
    /// The number of clients with hashed values of each domain, by the places of these values.
    shapes: Mutex<HashMap<Arc<str>, HashMap<Shape, usize>>>,
    /// The shapes alone, for readers. Changes under the lock of `shapes`.
    hashed: ArcSwap<HashMap<Arc<str>, Box<[Shape]>>>,
    len: AtomicUsize,
    plans: Plans,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            ordered: RwLock::default(),
            domains: RwLock::default(),
            named: (0..SHARDS).map(|_| ArcSwap::default()).collect(),
            bits: AtomicU64::new(0),
            shapes: Mutex::default(),
            hashed: ArcSwap::default(),
            len: AtomicUsize::new(0),
            plans: Plans::default(),
        }
    }
}

/// A client, ordered by its name.
#[derive(Clone, Debug)]
struct InOrder(Arc<Client>);

impl InOrder {
    fn key(&self) -> &ClientName {
        &self.0.name
    }
}

impl PartialEq for InOrder {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for InOrder {}

impl PartialOrd for InOrder {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InOrder {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(other.key())
    }
}

impl std::borrow::Borrow<ClientName> for InOrder {
    fn borrow(&self) -> &ClientName {
        self.key()
    }
}

/// A page of a list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The clients of this page, in the order of their names.
    pub clients: Vec<Arc<Client>>,
    /// True if more clients follow.
    pub more: bool,
    /// The number of clients on all pages.
    pub total: usize,
}

impl Directory {
    /// The number of clients, expired ones included.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// True if there are no clients.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The plans of its clients.
    pub const fn plans(&self) -> &Plans {
        &self.plans
    }

    /// True if `domain` has clients.
    pub fn has_domain(&self, domain: &[u8]) -> bool {
        self.may_have_domain(domain)
            && std::str::from_utf8(domain)
                .is_ok_and(|domain| self.named(domain).load().contains(domain))
    }

    /// False if `domain` has no clients; true if it may have some. A Bloom filter: faster than
    /// [`Self::has_domain`], with false positives.
    pub fn may_have_domain(&self, domain: &[u8]) -> bool {
        self.bits.load(Ordering::Relaxed) & bit(domain) != 0
    }

    /// The client of this descriptor, expired or not: stored by its values, or by `hash` of some.
    /// Of two the newer one.
    pub fn find_in_any_form<'e>(
        &self,
        domain: &[u8],
        entries: &(impl Iterator<Item = (&'e [u8], &'e [u8])> + Clone),
        hash: impl Fn(&[u8]) -> String,
    ) -> Option<Arc<Client>> {
        let clear = entries.clone().map(|(key, value)| (key, Value::clear(value)));
        let clear = self.find(domain, &clear);
        let hashed = self.hashed.load();
        if hashed.is_empty() {
            return clear;
        }
        let shapes = std::str::from_utf8(domain).ok().and_then(|domain| hashed.get(domain));
        let forms = shapes.into_iter().flatten().filter_map(|shape| shape.apply(entries, &hash));
        let found = forms.filter_map(|form| self.find(domain, &form.iter()));
        found.chain(clear).max_by_key(|client| client.revision)
    }

    /// The client of these entries as they are stored, expired or not.
    fn find<'e>(
        &self,
        domain: &[u8],
        entries: &(impl Iterator<Item = (&'e [u8], Value<'e>)> + Clone),
    ) -> Option<Arc<Client>> {
        let hash = self.hash(domain, entries.clone());
        let is_it = |client: &Arc<Client>| {
            let mut asked = entries.clone();
            let mut own = client.name.entries.iter();
            client.name.domain.as_bytes() == domain
                && own.all(|(key, value)| asked.next() == Some((key, value)))
                && asked.next().is_none()
        };
        self.shard(hash)?.read().find(hash, is_it).cloned()
    }

    /// Looks up the client of a name, expired or not.
    pub fn get(&self, name: &ClientName) -> Option<Arc<Client>> {
        self.find(name.domain.as_bytes(), &name.entries.iter())
    }

    /// Inserts a client, or replaces the one of the same name.
    pub fn put(&self, mut client: Client) {
        if let Some((domain, _)) = self.domains.read().get_key_value(&client.name.domain) {
            client.name.domain = Arc::clone(domain);
        }
        let domain = &client.name.domain;
        client.plan = client.plan.map(|plan| self.plans.enter(domain, &plan));
        let client = Arc::new(client);
        let hash = self.hash(client.name.domain.as_bytes(), client.name.entries.iter());
        let Some(shard) = self.shard(hash) else { return };
        let mut shard = shard.write();
        let rehash = |client: &Arc<Client>| self.hash_of(client);
        match shard.entry(hash, |there| there.name == client.name, rehash) {
            Slot::Occupied(mut there) => {
                let before = std::mem::replace(there.get_mut(), Arc::clone(&client));
                self.leave_plan(&before);
            }
            Slot::Vacant(place) => {
                place.insert(Arc::clone(&client));
                self.len.fetch_add(1, Ordering::Relaxed);
                let mut domains = self.domains.write();
                self.count_shape(&client.name, true);
                let count = domains.entry(Arc::clone(&client.name.domain)).or_default();
                *count += 1;
                if *count == 1 {
                    self.change_named(&client.name.domain, HashSet::insert);
                    self.bits.fetch_or(bit(client.name.domain.as_bytes()), Ordering::Relaxed);
                }
            }
        }
        // Still under the lock of the shard, so that both indexes see the writes of a client in the
        // same order.
        self.ordered.write().replace(InOrder(client));
    }

    /// Removes a client.
    pub fn remove(&self, name: &ClientName) {
        let hash = self.hash(name.domain.as_bytes(), name.entries.iter());
        let Some(shard) = self.shard(hash) else { return };
        let mut shard = shard.write();
        let Ok(there) = shard.find_entry(hash, |client| client.name == *name) else { return };
        let (gone, _) = there.remove();
        self.leave_plan(&gone);
        self.len.fetch_sub(1, Ordering::Relaxed);
        self.count_shape(name, false);
        self.ordered.write().remove(name);
        let mut domains = self.domains.write();
        if let Some(count) = domains.get_mut(&name.domain) {
            *count -= 1;
            if *count == 0 {
                domains.remove(&name.domain);
                self.change_named(&name.domain, |named, domain| named.remove(&domain));
                let bits = domains.keys().fold(0, |bits, domain| bits | bit(domain.as_bytes()));
                self.bits.store(bits, Ordering::Relaxed);
            }
        }
    }

    /// Removes the clients for which `keep` returns false.
    pub fn retain(&self, keep: impl Fn(&ClientName) -> bool) {
        let gone: Vec<ClientName> = self
            .ordered
            .read()
            .iter()
            .map(InOrder::key)
            .filter(|name| !keep(name))
            .cloned()
            .collect();
        for name in &gone {
            self.remove(name);
        }
    }

    /// Returns at most `size` clients after `after`, of `domain` or of all domains.
    pub fn page(&self, domain: Option<&str>, after: Option<&ClientName>, size: usize) -> Page {
        use std::ops::Bound::{Excluded, Included, Unbounded};

        let first =
            domain.map(|domain| ClientName { domain: domain.into(), entries: Entries::default() });
        let from = match (after, &first) {
            (Some(after), Some(first)) => Excluded(after.max(first)),
            (Some(after), None) => Excluded(after),
            (None, Some(first)) => Included(first),
            (None, None) => Unbounded,
        };
        let ordered = self.ordered.read();
        let of_domain =
            |client: &&InOrder| domain.is_none_or(|domain| *client.key().domain == *domain);
        let mut rest = ordered.range::<ClientName, _>((from, Unbounded)).take_while(of_domain);
        let clients = rest.by_ref().take(size).map(|client| Arc::clone(&client.0)).collect();
        let total = match domain {
            Some(domain) => self.domains.read().get(domain).copied().unwrap_or(0),
            None => ordered.len(),
        };
        Page { clients, more: rest.next().is_some(), total }
    }

    fn leave_plan(&self, gone: &Client) {
        if let Some(plan) = &gone.plan {
            self.plans.leave(plan);
        }
    }

    fn shard(&self, hash: u64) -> Option<&RwLock<HashTable<Arc<Client>>>> {
        // The high bits choose the shard, because the table in a shard uses the low ones.
        self.shards.get((hash >> 32) as usize % self.shards.len())
    }

    #[expect(clippy::indexing_slicing, reason = "the index is below the length, which is not 0")]
    fn named(&self, domain: &str) -> &ArcSwap<HashSet<Arc<str>>> {
        &self.named[self.hasher.hash_one(domain) as usize % self.named.len()]
    }

    fn change_named(
        &self,
        domain: &Arc<str>,
        change: impl Fn(&mut HashSet<Arc<str>>, Arc<str>) -> bool,
    ) {
        self.named(domain).rcu(|named| {
            let mut changed = HashSet::clone(named);
            change(&mut changed, Arc::clone(domain));
            changed
        });
    }

    /// Notes that a client came, or that it is gone.
    fn count_shape(&self, name: &ClientName, came: bool) {
        let Some(shape) = Shape::of(&name.entries) else { return };
        let mut shapes = self.shapes.lock();
        let of_domain = shapes.entry(Arc::clone(&name.domain)).or_default();
        let before = of_domain.len();
        if came {
            *of_domain.entry(shape).or_default() += 1;
        } else if let Some(count) = of_domain.get_mut(&shape) {
            *count -= 1;
            if *count == 0 {
                of_domain.remove(&shape);
            }
        }
        if of_domain.len() == before {
            return;
        }
        shapes.retain(|_, of_domain| !of_domain.is_empty());
        let published = shapes
            .iter()
            .map(|(domain, of_domain)| (Arc::clone(domain), of_domain.keys().cloned().collect()));
        self.hashed.store(Arc::new(published.collect()));
    }

    fn hash_of(&self, client: &Client) -> u64 {
        self.hash(client.name.domain.as_bytes(), client.name.entries.iter())
    }

    fn hash<'e>(&self, domain: &[u8], entries: impl Iterator<Item = (&'e [u8], Value<'e>)>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        // Concatenation is ambiguous, but only costs a collision: the lookup compares the parts.
        hasher.write(domain);
        for (key, value) in entries {
            hasher.write(key);
            hasher.write(value.bytes);
        }
        hasher.finish()
    }
}

/// The Bloom filter bit of a domain: a hash of its length, first byte and last byte.
fn bit(domain: &[u8]) -> u64 {
    let end = |byte: Option<&u8>| byte.map_or(0, |byte| usize::from(*byte));
    1 << ((domain.len() + 7 * end(domain.first()) + 31 * end(domain.last())) % 64)
}

#[cfg(test)]
mod tests;
