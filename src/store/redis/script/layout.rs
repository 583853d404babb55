//! The layout of frames, claims, limits, replies and states: the one table of it.
//!
//! Encoder and decoder use the records declared here. A test renders `lua/10_layout.lua`, the part
//! of the script that names formats and positions, and the tables of `docs/redis-script.md` from
//! the same declarations.
//!
//! A change of a state is a new format: give it a new version, and read the old one.

mod number;
mod record;

pub use self::number::{Kind, Number, Sink};
pub use self::record::{Answer, Constant, Field, Record};
use self::record::{answers, constants, records};
use crate::domain::lease;
use crate::domain::limit::{Reach, Span};

constants! {
    /// The commit of a group.
    COMMITS: u8 {
        TOGETHER = 0, "A denied request charges nothing but refunds, `BOOK`, and limits that always charge.";
        EACH = 1, "Each part is charged by its own verdict.";
        NEVER = 2, "A trial: nothing is charged.";
    }
    /// The roles of a part, added up.
    ROLES: u8 {
        QUOTA = 1, "Denies only together with all other parts of this role.";
        SHADOW = 2, "Never denies.";
    }
    /// The algorithm of a claim; a limit has one of 1 to 5, a state one of 1 to 3.
    ALGORITHMS: u8 {
        BLOCKED = 0, "A limit of no requests.";
        TOKEN_BUCKET = 1, "A token bucket.";
        SLIDING_WINDOW = 2, "A sliding window.";
        FIXED_WINDOW = 3, "A fixed window.";
        CALENDAR_WINDOW = 4, "A fixed window between edges that the limit has; its state is that of a fixed window.";
        CONCURRENCY = 5, "Holds at a time; `TAKE` takes one. The state is a sorted set.";
        LEASED_TOKEN_BUCKET = 6, "A token bucket, and a lease once the hits are charged.";
        GUARD = 7, "Of an amendment: those that follow take effect once.";
    }
    /// Added to the algorithm of a claim.
    MARKS: u8 {
        SINGLE = 16, "The claim is a group of its own, without `commit` and parts.";
    }
    /// The kind of a claim.
    KINDS: u8 {
        TAKE = 0, "Charges the hits.";
        PEEK = 1, "Asks for hits and charges nothing.";
        REFUND = 2, "Gives hits back.";
        BOOK = 3, "Charges the hits in any case, into debt.";
    }
    /// The change of an amendment.
    CHANGES: u8 {
        GIVE_BACK = 0, "Gives back what was charged for a request that was then denied.";
        TELL = 1, "Charges what was admitted while the store was away.";
        TELL_BOOKED = 2, "The same for a limit that settles: into debt, as `BOOK` does.";
        RETURN = 3, "Gives back what a hold did not cost.";
        CHARGE = 4, "Charges what a hold cost beyond its estimate, whatever is left.";
        RELEASE = 5, "Ends a hold on a concurrency limit.";
        RENEW = 6, "Prolongs a hold on a concurrency limit.";
        RELEASE_OLDEST = 7, "Ends the hold on a concurrency limit that ends first.";
        RETURN_OLDEST = 8, "`RETURN` for the hold that `RELEASE_OLDEST` has ended in the same settlement.";
        CHARGE_WITHOUT_OLDEST = 9, "`CHARGE` if there was none to end.";
    }
    /// The outcome of a guard.
    OUTCOMES: u8 {
        SETTLED = 0, "What it guards took effect.";
        AGAIN = 1, "It took effect before.";
        LATE = 2, "The hold has ended.";
    }
    /// The version of a state.
    VERSIONS: u8 {
        OLD_BUCKET_VERSION = 1, "A token bucket without a reach, which counts as `UNBOUNDED`; only read.";
        BUCKET_VERSION = 2, "A token bucket.";
        WINDOW_VERSION = 1, "A sliding or fixed window.";
    }
    /// Bounds.
    BOUNDS: u64 {
        SATURATION = crate::domain::SATURATION, "The most hits, and the longest span in microseconds.";
        UNBOUNDED = Reach::UNBOUNDED.to_bits() as u64, "The reach of debt without a bound in 32 bits.";
        MAX_LEASE_US = lease::MAX_OUTSTANDING_US, "The furthest ahead of now that a lease is outstanding.";
        EXPIRY_STEP_US = 1 << 20, "Keys expire at multiples of this, so that most writes keep the expiry.";
        MAX_PADDING = 2, "The most runs of padding. In use, one run expires when another begins, or a little earlier.";
    }
}

records! {
    /// Begins a group: then come its parts.
    GroupHead {
        commit: u8, "", "commit of the group";
        parts: u16, "count", "parts that follow";
    }
    /// Begins a part: then come its claims.
    PartHead {
        roles: u8, "", "roles of the part, added up";
        claims: u16, "count", "claims that follow";
    }
    /// Begins a claim of any algorithm.
    ClaimHead {
        algorithm: u8, "", "algorithm; `SINGLE` added for a group of its own";
        slot: u16, "index", "key of the counter in KEYS; 0: none";
        limit: u16, "index", "limit in `ARGV[2]`; 0: none";
        kind: u8, "", "kind of the claim";
    }
    /// Continues a claim on a token bucket.
    Cost {
        cost: Span, "us", "time in which the hits refill";
    }
    /// Continues a claim that asks for a lease, after the cost.
    Ask {
        tokens: Span, "us", "tokens to lease; 0: none";
        most: Span, "us", "most tokens that may be outstanding, these included";
        finished: Span, "us", "tokens of a lease that has ended";
        finished_until: u64, "us", "expiry of that lease, since 1970; 0: none";
        ttl: u64, "us", "time to live of the lease";
    }
    /// Continues a claim on a window.
    WindowHits {
        hits: u64, "hits", "hits that must fit, or those given back";
    }
    /// Continues a claim on a concurrency limit.
    SlotId {
        id: u64, "", "id of the hold that is taken";
    }
    /// Begins an amendment of any algorithm.
    AmendmentHead {
        algorithm: u8, "", "algorithm; `BLOCKED` changes nothing, and nothing follows";
        slot: u16, "index", "key of the counter in KEYS; 0: none; of a guard: the set of settled holds";
        limit: u16, "index", "limit in `ARGV[2]`; 0: none; of a guard: the number of amendments that it guards";
        change: u8, "", "change of the amendment";
    }
    /// Continues the amendment of a token bucket.
    BucketAmendment {
        cost: Span, "us", "time in which the hits refill";
        at: u64, "us", "time of the charge, since 1970 (`GIVE_BACK`, `RETURN`)";
    }
    /// Continues the amendment of a window.
    WindowAmendment {
        hits: u64, "hits", "hits to give back, or to charge";
        at: u64, "us", "time of the charge, since 1970 (`GIVE_BACK`); age of the newest hit, or end of the fixed window (`TELL`, `TELL_BOOKED`)";
    }
    /// Continues the amendment of a hold on a concurrency limit.
    SlotAmendment {
        id: u64, "", "id of the hold";
        until: u64, "us", "its new end, since 1970 (`RENEW`)";
    }
    /// Continues a guard.
    GuardBody {
        id: u64, "", "id of the hold";
        expires_at: u64, "us", "end of the hold, since 1970";
        kept_until: u64, "us", "time until which the set is kept, since 1970";
    }
    /// Begins a limit of any algorithm.
    LimitHead {
        algorithm: u8, "", "algorithm";
        always: u8, "", "1: charged even when denied";
    }
    /// Continues the limit of a token bucket.
    BucketLimit {
        rate: u32, "hits", "requests per period";
        full: Span, "us", "span that must fit: time in which the burst refills, and the longest wait";
        ceiling: Span, "us", "furthest ahead of now that this limit writes: burst, and debt or wait";
        reach: u32, "hits", "the same in hits; `UNBOUNDED`: at least as many";
        period: u64, "us", "period of the rate";
    }
    /// Continues the limit of a sliding window.
    SlidingLimit {
        capacity: u32, "hits", "most hits in a window";
        period: u64, "us", "length of the window";
        run_width: u64, "us", "hits in one cell of this width join one run";
        slots: u32, "count", "most runs";
    }
    /// Continues the limit of a fixed window.
    FixedLimit {
        capacity: u32, "hits", "most hits in a window";
        period: u64, "us", "length of the window";
    }
    /// Continues the limit of a fixed window that follows a calendar. The clock of Redis picks the
    /// window.
    CalendarLimit {
        capacity: u32, "hits", "most hits in a window";
        first: u64, "us", "begin of the previous window, since 1970";
        second: u64, "us", "begin of the window that the replica is in";
        third: u64, "us", "its end, the begin of the next window";
        last: u64, "us", "end of the next window";
    }
    /// Continues a concurrency limit.
    ConcurrencyLimit {
        capacity: u32, "holds", "most holds at a time";
        ttl: u64, "us", "time to live of a hold";
    }
    /// Begins a state.
    StateHead {
        version: u8, "", "version of the state";
        algorithm: u8, "", "algorithm";
    }
    /// Continues a token bucket of format 2.
    Bucket {
        full_at: u64, "us", "time at which the bucket is full, since 1970";
        rest: u32, "1/rate us", "remainder of that time";
        rate: u32, "hits", "rate of the limit that wrote the state";
        reach: u32, "hits", "reach of that limit";
    }
    /// Continues a token bucket of format 1, which is only read.
    OldBucket {
        full_at: u64, "us", "time at which the bucket is full, since 1970";
        rest: u32, "1/rate us", "remainder of that time";
        rate: u32, "hits", "rate of the limit that wrote the state";
    }
    /// Continues a token bucket whose tokens replicas hold.
    Leases {
        early_until: u64, "us", "expiry of the earlier leases, since 1970; 0: none";
        early: Span, "us", "their tokens, at the rate of the state";
        late_until: u64, "us", "expiry of the later leases, since 1970";
        late: Span, "us", "their tokens, at the rate of the state";
    }
    /// Continues a sliding window: the newest run and the total. Then come the older runs, oldest
    /// first.
    Sliding {
        newest: u64, "us", "time of the newest hit, since 1970";
        newest_hits: u64, "hits", "hits of the newest run";
        total: u64, "hits", "hits of all runs";
    }
    /// An older run of a sliding window.
    Run {
        newest: u64, "us", "time of its newest hit, since 1970; -2^53: padding before all other runs";
        hits: u64, "hits", "its hits; 0 in padding";
    }
    /// Continues a fixed window.
    Fixed {
        start: u64, "us", "begin of the window, since 1970";
        count: u64, "hits", "hits in the window";
    }
}

answers! {
    /// Begins the reply.
    ReplyHead {
        unreadable, "count", "states that could not be read and count as empty";
        now, "us", "time of the decision on the clock of this Redis, since 1970";
    }
    /// The answer to a claim on a token bucket.
    BucketAnswer {
        lag, "us", "time until the bucket is full";
        rest, "1/rate us", "remainder of that time";
    }
    /// Follows where the claim asked for a lease.
    LeaseAnswer {
        leased_until, "us", "expiry of the lease, since 1970; 0: not granted";
    }
    /// The answer to a claim on a sliding window.
    SlidingAnswer {
        total, "hits", "hits in the window";
        fits_in, "us", "time until the same hits would fit; 0: they passed, or never fit";
        empty_in, "us", "time until the window is empty";
    }
    /// The answer to a claim on a fixed window.
    FixedAnswer {
        count, "hits", "hits in the window";
        ends_in, "us", "time until the window ends";
    }
    /// The answer to a claim on a concurrency limit.
    ConcurrencyAnswer {
        live, "holds", "holds at this time";
        ends_in, "us", "time until the first of them ends; 0: the claim passed";
    }
    /// The answer to an amendment.
    AmendmentAnswer {
        amount, "us or hits", "what was given back or charged: microseconds of a bucket, hits of a window, 1 for a hold that was live; the outcome of a guard";
    }
}

/// A format: records that stand one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The name of its constants in the script.
    pub lua: &'static str,
    /// The name in the documentation.
    pub title: &'static str,
    /// The purpose and the fields of each record.
    pub records: &'static [(&'static str, &'static [Field])],
}

/// Lists formats.
macro_rules! formats {
    ($($lua:ident $title:literal = $($record:ident)+),+ $(,)?) => {
        &[$(Format {
            lua: stringify!($lua),
            title: $title,
            records: &[$((<$record as Record>::ABOUT, <$record as Record>::FIELDS)),+],
        }),+]
    };
}

/// The heads of the groups of `ARGV[1]` and of their parts.
pub const HEADS: &[Format] = formats!(GROUP "Group" = GroupHead, PART "Part" = PartHead);

/// The claims by the number of their algorithm.
pub const CLAIMS: &[Format] = formats!(
    CLAIM "Blocked" = ClaimHead,
    CLAIM "Token bucket" = ClaimHead Cost,
    CLAIM "Sliding window" = ClaimHead WindowHits,
    CLAIM "Fixed window" = ClaimHead WindowHits,
    CLAIM "Calendar window" = ClaimHead WindowHits,
    CLAIM "Concurrency" = ClaimHead SlotId,
    CLAIM "Token bucket and a lease" = ClaimHead Cost Ask,
);

/// The amendments: a head, and what follows by algorithm.
pub const AMENDMENTS: &[Format] = formats!(
    AMENDMENT "Amendment" = AmendmentHead,
    AMENDED_BUCKET "Of a token bucket" = BucketAmendment,
    AMENDED_WINDOW "Of a window" = WindowAmendment,
    AMENDED_SLOT "Of a hold on a concurrency limit" = SlotAmendment,
    GUARD_BODY "Of a guard" = GuardBody,
);

/// The limits of `ARGV[2]` by the number of their algorithm, from 1.
pub const LIMITS: &[Format] = formats!(
    BUCKET "Token bucket" = LimitHead BucketLimit,
    SLIDING "Sliding window" = LimitHead SlidingLimit,
    FIXED "Fixed window" = LimitHead FixedLimit,
    CALENDAR "Calendar window" = LimitHead CalendarLimit,
    CONCURRENCY "Concurrency" = LimitHead ConcurrencyLimit,
);

/// The states.
pub const STATES: &[Format] = formats!(
    BUCKET "Token bucket, format 2" = StateHead Bucket,
    OLD_BUCKET "Token bucket, format 1" = StateHead OldBucket,
    SLIDING "Sliding window" = StateHead Sliding,
    FIXED "Fixed window" = StateHead Fixed,
);

/// Records that follow a state.
pub const SUFFIXES: &[Format] = formats!(LEASES "Leases, after a token bucket" = Leases, RUN "Run, after a sliding window" = Run);
