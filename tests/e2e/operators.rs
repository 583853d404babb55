//! What operators change at one tollgate holds at the other, through Envoy, within a second: also when nobody is notified,
//! and after everything that remembers it was restarted.

use std::time::{Duration, Instant};

use tollgate::edge::admin::pb::{self, Client, Mode, Unit};

use crate::stack::Stack;
use crate::support::caller::{Answer, Caller};
use crate::support::operator::{Operator, client, ending_in, limit};
use crate::traffic::{OTHER, statuses};

/// None of this is about an outage: a busy machine shall not look like one.
const PATIENT: &str = "store.deadline=1s";

/// The time in which a change is to be in force everywhere.
const SOON: Duration = Duration::from_secs(1);

/// So many answers in a row are of both tollgates: one connection is one worker of Envoy, which asks them in turn.
const ALL: usize = 8;

/// Between two requests: fewer in a second than any key may send by the shipped rules while an old rule is in force.
const PACE: Duration = Duration::from_millis(25);

/// No file says anything of the domain that Envoy asks about: it is left to operators.
const ELSEWHERE: (&str, &str) = ("domain: edge\n", "domain: elsewhere\n");

/// What an answer tells of the mode, for a client that may not send anything.
type Holds = fn(&Answer) -> bool;

/// An operator at each tollgate.
async fn operators(stack: &Stack) -> [Operator; 2] {
    let [first, second] = &stack.tollgates;
    [Operator::of(first).await, Operator::of(second).await]
}

/// A client with a key and so many requests in an hour, named as [`of_contract`] looks for.
fn contract(key: &str, requests_per_unit: u32) -> Client {
    let limit = pb::Limit { name: "contract".to_owned(), ..limit(requests_per_unit, Unit::Hour) };
    client("edge", ("api_key", key), limit)
}

/// A policy of the domain: so many requests of a key in this unit, named as [`is_limited_by`] looks for.
fn policy(name: &str, unit: &str, requests_per_unit: u32) -> String {
    format!(
        "domain: edge\ndescriptors:\n  - key: api_key\n    rate_limit: {{name: {name}, unit: {unit}, \
         requests_per_unit: {requests_per_unit}}}\n"
    )
}

/// Whether this limit is among those that Envoy reports.
fn is_limited_by(answer: &Answer, name: &str) -> bool {
    let limits = answer.header("x-ratelimit-limit");
    limits.is_some_and(|limits| limits.contains(&format!("name=\"{name}\"")))
}

fn of_contract(answer: &Answer) -> bool {
    is_limited_by(answer, "contract")
}

fn is_enforced(answer: &Answer) -> bool {
    of_contract(answer) && answer.status == 429
}

fn is_shadowed(answer: &Answer) -> bool {
    of_contract(answer) && answer.status == 404
}

fn is_unlimited(answer: &Answer) -> bool {
    answer.status == 404 && answer.header("x-ratelimit-limit").is_none()
}

/// Asks with a key until both tollgates answer as they should; whoever asks later than [`SOON`] after `since` must not be
/// answered otherwise. The answers that are as they should be.
async fn in_force(
    what: &str,
    since: Instant,
    (caller, key): (&Caller, &'static str),
    fits: impl Fn(&Answer) -> bool,
) -> Vec<Answer> {
    let (mut fitting, mut run) = (Vec::new(), 0);
    while run < ALL {
        let answer = caller.get_with(OTHER, "x-api-key", key.as_bytes()).await.unwrap();
        if fits(&answer) {
            fitting.push(answer);
            run += 1;
        } else {
            let late = answer.sent.saturating_duration_since(since);
            assert!(late < SOON, "{what}: not in force after {late:?}: {answer:?}");
            run = 0;
        }
        tokio::time::sleep(PACE).await;
    }
    fitting
}

/// As many passed as may, fewer only by calls that Envoy made twice; the others did not.
async fn assert_passed(stack: &Stack, answers: &[Answer], limit: u64) {
    let statuses = statuses(answers);
    let count = |status: u16| statuses.get(&status).copied().unwrap_or(0) as u64;
    assert_eq!(count(404) + count(429), answers.len() as u64, "{statuses:?}");
    let least = limit.saturating_sub(stack.retried().await);
    assert!((least..=limit).contains(&count(404)) && count(429) > 0, "{limit}: {statuses:?}");
}

/// From now on Redis tells nobody that there is something new.
fn forbid_notices(stack: &Stack) {
    let mut redis = stack.redis.connection();
    let mut forbid = redis::cmd("ACL");
    forbid.arg("SETUSER").arg("default").arg("-subscribe").exec(&mut redis).unwrap();
    let mut kill = redis::cmd("CLIENT");
    let killed: u32 = kill.arg("KILL").arg("TYPE").arg("pubsub").query(&mut redis).unwrap();
    assert_eq!(killed, 2, "each tollgate had a subscription");
}

/// Nobody found a way to be told all the same.
fn assert_no_notices(stack: &Stack) {
    let mut list = redis::cmd("CLIENT");
    let list = list.arg("LIST").arg("TYPE").arg("pubsub");
    let subscribed: String = list.query(&mut stack.redis.connection()).unwrap();
    assert_eq!(subscribed, "");
}

async fn client_comes_and_goes(stack: &Stack, host: u8, key: &'static str) {
    let [here, there] = operators(stack).await;
    let caller = stack.client(host);
    let by_rule = |answer: &Answer| answer.status == 404 && is_limited_by(answer, "key-default");
    in_force("the rule", Instant::now(), (&caller, key), by_rule).await;

    here.upsert(contract(key, 3)).await.unwrap();
    let limited = in_force("the client", Instant::now(), (&caller, key), of_contract).await;
    assert_passed(stack, &limited, 3).await;
    there.delete(contract(key, 0)).await.unwrap();
    in_force("the rule, again", Instant::now(), (&caller, key), by_rule).await;

    let (guest, end) = ending_in(Duration::from_secs(4), contract(key, 0));
    there.upsert(guest).await.unwrap();
    in_force("the client, for a while", Instant::now(), (&caller, key), is_enforced).await;
    tokio::time::sleep_until(end.into()).await;
    in_force("the rule, after expiry", end, (&caller, key), by_rule).await;
}

async fn policy_comes_and_goes(stack: &Stack, host: u8, keys: [&'static str; 2]) {
    let [here, there] = operators(stack).await;
    let caller = stack.client(host);
    in_force("no policy", Instant::now(), (&caller, keys[0]), is_unlimited).await;
    here.apply(&policy("strict", "hour", 3)).await;
    let strict = |answer: &Answer| is_limited_by(answer, "strict");
    let limited = in_force("the policy", Instant::now(), (&caller, keys[0]), strict).await;
    assert_passed(stack, &limited, 3).await;
    // Another period: counters of the same would keep what they have counted.
    there.apply(&policy("lenient", "day", 5)).await;
    let lenient = |answer: &Answer| is_limited_by(answer, "lenient");
    let limited = in_force("another policy", Instant::now(), (&caller, keys[1]), lenient).await;
    assert_passed(stack, &limited, 5).await;
    here.delete_policy("edge").await;
    in_force("no policy, again", Instant::now(), (&caller, keys[1]), is_unlimited).await;
}

/// Of the domain, of all domains, and both: that of the domain goes first.
async fn mode_comes_and_goes(stack: &Stack, host: u8, key: &'static str) {
    let operators = operators(stack).await;
    let caller = stack.client(host);
    operators[0].upsert(contract(key, 0)).await.unwrap();
    in_force("the client", Instant::now(), (&caller, key), is_enforced).await;
    let steps: [(&str, Mode, Holds); 9] = [
        ("edge", Mode::Shadow, is_shadowed),
        ("edge", Mode::Off, is_unlimited),
        ("edge", Mode::Enforce, is_enforced),
        ("", Mode::Off, is_enforced),
        ("edge", Mode::Unspecified, is_unlimited),
        ("", Mode::Shadow, is_shadowed),
        ("edge", Mode::Enforce, is_enforced),
        ("", Mode::Unspecified, is_enforced),
        ("edge", Mode::Unspecified, is_enforced),
    ];
    for (step, (domain, mode, holds)) in steps.into_iter().enumerate() {
        operators[step % 2].set_mode(domain, mode).await;
        let what = format!("mode {mode:?} of {domain:?}");
        in_force(&what, Instant::now(), (&caller, key), holds).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_of_one_tollgate_is_limited_by_the_other_also_without_notices() {
    let Some(stack) = Stack::start_with(&[], &[PATIENT]).await else { return };
    client_comes_and_goes(&stack, 11, "acme").await;
    forbid_notices(&stack);
    client_comes_and_goes(&stack, 12, "globex").await;
    assert_no_notices(&stack);
    stack.assert_nothing_was_bypassed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_of_one_tollgate_is_that_of_the_other_also_without_notices() {
    let Some(stack) = Stack::start_with(&[ELSEWHERE], &[PATIENT]).await else { return };
    policy_comes_and_goes(&stack, 11, ["acme", "globex"]).await;
    forbid_notices(&stack);
    policy_comes_and_goes(&stack, 12, ["initech", "hooli"]).await;
    assert_no_notices(&stack);
    stack.assert_nothing_was_bypassed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mode_of_one_tollgate_is_that_of_the_other_also_without_notices() {
    let Some(stack) = Stack::start_with(&[], &[PATIENT]).await else { return };
    mode_comes_and_goes(&stack, 11, "acme").await;
    forbid_notices(&stack);
    mode_comes_and_goes(&stack, 12, "globex").await;
    assert_no_notices(&stack);
    stack.assert_nothing_was_bypassed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_outlive_kill_9_of_both_tollgates_and_of_redis() {
    let Some(mut stack) = Stack::start_with(&[ELSEWHERE], &[PATIENT]).await else { return };
    let caller = stack.client(11);
    let [here, there] = operators(&stack).await;
    here.apply(&policy("applied", "hour", 3)).await;
    there.upsert(contract("acme", 0)).await.unwrap();
    there.upsert(contract("gone", 0)).await.unwrap();
    there.delete(contract("gone", 0)).await.unwrap();
    here.set_mode("edge", Mode::Shadow).await;
    stack.kill_and_restart_what_decides().await;

    in_force("the client, in shadow mode", Instant::now(), (&caller, "acme"), is_shadowed).await;
    let applied = |answer: &Answer| is_limited_by(answer, "applied") && !of_contract(answer);
    in_force("the policy", Instant::now(), (&caller, "gone"), applied).await;
    let [here, _] = operators(&stack).await;
    here.set_mode("edge", Mode::Unspecified).await;
    in_force("the client", Instant::now(), (&caller, "acme"), is_enforced).await;
    stack.assert_nothing_was_bypassed().await;
}
