//! Fixed windows that follow a calendar, on both stores: the reset is at the edge, and replicas count together.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{ToSpan as _, ZonedDateTime};
use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_descriptor::RateLimitOverride;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::grpc::{ask, codes, with_hits};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate, request};

const POLICY: &str = "
domain: d
descriptors:
  - key: month
    rate_limit: {unit: month, requests_per_unit: 2, algorithm: fixed_window, calendar: {zone: Asia/Tokyo, anchor_day: 31}}
  - key: plain
    rate_limit: {unit: month, requests_per_unit: 2, algorithm: fixed_window}
";

/// The end of the month of `zone` whose windows begin on `day`.
fn end_of_month(zone: &str, day: i8) -> ZonedDateTime {
    let zone = TimeZone::get(zone).unwrap();
    let now = jiff::Timestamp::now().to_zoned_datetime(zone.clone());
    let begin = |month: Date| month.with().day(day.min(month.days_in_month())).build().unwrap();
    let this = now.date().first_of_month();
    let edges = [this, this.checked_add(1.month()).unwrap()].map(begin);
    let edges = edges.map(|date| date.to_zoned_datetime(zone.clone()).unwrap());
    edges.into_iter().find(|edge| *edge > now).unwrap()
}

/// The time until then, by the answer: as many seconds, but for those that pass meanwhile.
fn assert_reset(answer: &pb::RateLimitResponse, end: &ZonedDateTime) {
    let left = end.timestamp().as_second() - jiff::Timestamp::now().as_second();
    let found = answer.statuses[0].duration_until_reset.as_ref().unwrap().seconds;
    assert!((left - 1..=left + 10).contains(&found), "{found} s instead of {left}");
}

async fn counts_to_the_edge(first: &Tollgate, second: &Tollgate) {
    let (mut client, mut other) = (first.client().await, second.client().await);
    let asked = request("d", &[&[("month", "v")]]);
    let end = end_of_month("Asia/Tokyo", 31);
    let answer = ask(&mut client, asked.clone()).await;
    assert_eq!((answer.overall_code(), answer.statuses[0].limit_remaining), (Code::Ok, 1));
    assert_reset(&answer, &end);
    assert_eq!(codes(&mut other, &asked, 1).await, [Code::Ok]);
    let denied = ask(&mut client, asked.clone()).await;
    assert_eq!(denied.overall_code(), Code::OverLimit);
    assert_reset(&denied, &end);
    // An override of a month counts in the same window of the same counter.
    let mut over = with_hits(asked, 1);
    over.descriptors[0].limit =
        Some(RateLimitOverride { requests_per_unit: 3, unit: 5, unit_multiplier: None });
    let answer = ask(&mut client, over.clone()).await;
    assert_eq!((answer.overall_code(), answer.statuses[0].limit_remaining), (Code::Ok, 0));
    assert_reset(&answer, &end);
    assert_eq!(codes(&mut other, &over, 1).await, [Code::OverLimit]);
}

#[tokio::test]
async fn windows_end_with_the_month() {
    let memory = Options::serving(POLICY).start();
    counts_to_the_edge(&memory, &memory).await;
    let Some(redis) = RedisServer::start() else { return };
    let start = || Options::serving(POLICY).redis(redis.url()).set("store.deadline=5s").start();
    counts_to_the_edge(&start(), &start()).await;
}

#[tokio::test]
async fn all_months_follow_the_calendar_where_the_settings_say_so() {
    let tollgate = Options::serving(POLICY).set("policies.calendar_months=true").start();
    let mut client = tollgate.client().await;
    let asked = request("d", &[&[("plain", "v")]]);
    assert_reset(&ask(&mut client, asked.clone()).await, &end_of_month("UTC", 1));
    let plain = Options::serving(POLICY).start();
    let answer = ask(&mut plain.client().await, asked).await;
    let found = answer.statuses[0].duration_until_reset.as_ref().unwrap().seconds;
    let month = 30 * 86_400;
    let left = month - jiff::Timestamp::now().as_second() % month;
    assert!((left - 1..=left + 10).contains(&found), "{found} s instead of {left}");
}
