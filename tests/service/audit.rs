//! The audit log: every change is a line with who, what, before and after; what changes nothing is none.

use std::time::Duration;

use prost_types::{Struct, value::Kind};
use serde_json::{Value, json};
use tollgate::edge::admin::pb::manage_clients_request::{Action, ResetUsage, Upsert};
use tollgate::edge::admin::pb::{self, Client, Mode};
use tonic::Code;

use crate::support::grpc::{ask, metadata};
use crate::support::operator::{Operator, client, daily, ending_in, limit, name};
use crate::support::tollgate::{Options, Tollgate, request};

const POLICY: &str = "domain: d\ndescriptors:
  - {key: k, rate_limit: {unit: day, requests_per_unit: 100}}
  - {key: secret, sensitive: true, rate_limit: {unit: day, requests_per_unit: 100}}\n";

const OTHER: &str =
    "{domain: e, descriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 7}}]}";

/// The first digits of the SHA-256 of `s3cret`.
const FINGERPRINT: &str = "1ec1c26b";

fn acme(requests_per_unit: u32) -> Client {
    daily("acme", requests_per_unit)
}

fn upsert(client: Client) -> Action {
    Action::Upsert(Upsert { clients: vec![client] })
}

/// Every line so far.
fn lines(tollgate: &Tollgate) -> Vec<Value> {
    let lines = tollgate.log();
    let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|line| line["target"] == "tollgate::audit").collect()
}

/// The line of the last change, once it is there: (action, what, before, after).
fn last(tollgate: &Tollgate, count: usize) -> [String; 4] {
    tollgate.wait_for(&format!("{count} audit lines"), || lines(tollgate).len() >= count);
    let lines = lines(tollgate);
    assert_eq!(lines.len(), count, "{lines:#?}");
    let line = &lines[count - 1];
    let who = line["who"].as_str().unwrap();
    let (peer, token) = who.split_once(" token ").unwrap();
    assert!(peer.starts_with("127.0.0.1:") && token == FINGERPRINT, "{who}");
    assert_eq!((&line["level"], &line["message"]), (&json!("INFO"), &json!("changed")));
    ["action", "what", "before", "after"].map(|field| line[field].as_str().unwrap().to_owned())
}

/// What a line says of a client, but for the time.
fn state(text: &str) -> Value {
    let mut state: Value = serde_json::from_str(text).expect(text);
    assert!(state.as_object_mut().unwrap().remove("updated_at").unwrap().is_u64(), "{text}");
    state
}

#[tokio::test]
async fn change_is_a_line_with_who_what_before_and_after() {
    let tollgate = Options::serving(POLICY).env("TOLLGATE__ADMIN__TOKEN", "s3cret").start();
    let operator = Operator::of(&tollgate).await.with("Bearer s3cret");
    let limits = |requests: u32| json!([{"rate": {"requests_per_unit": requests, "unit": "day", "unit_multiplier": 1}}]);

    let labels = [("plan".to_owned(), "trial".to_owned())].into();
    operator.upsert(Client { labels, ..acme(5) }).await.unwrap();
    let [action, what, before, after] = last(&tollgate, 1);
    assert_eq!((&*action, &*what, &*before), ("upsert_client", "d|k=acme", "none"));
    assert_eq!(state(&after), json!({"labels": {"plan": "trial"}, "limits": limits(5)}));

    operator.upsert(acme(6)).await.unwrap();
    let [action, what, before, then] = last(&tollgate, 2);
    assert_eq!((&*action, &*what), ("upsert_client", "d|k=acme"));
    assert_eq!(before, after, "the state that the line before ended with");
    assert_eq!(state(&then), json!({"limits": limits(6)}));

    ask(&mut tollgate.client().await, request("d", &[&[("k", "acme")]])).await;
    let reset = ResetUsage { client: Some(name(acme(0))), limit: None };
    operator.manage(Action::ResetUsage(reset)).await.unwrap();
    assert_eq!(last(&tollgate, 3), ["reset_usage", "d|k=acme", "1 counters", "0 counters"]);

    operator.delete(acme(0)).await.unwrap();
    assert_eq!(last(&tollgate, 4), ["delete_client", "d|k=acme", &*then, "none"]);
}

#[tokio::test]
async fn end_of_a_clients_time_is_a_line_by_tollgate_itself() {
    let tollgate = Options::serving(POLICY).start();
    let operator = Operator::of(&tollgate).await;
    let (guest, end) = ending_in(Duration::from_secs(10), acme(5));
    operator.upsert(guest).await.unwrap();
    tokio::time::sleep_until(end.into()).await;
    assert_eq!(lines(&tollgate).len(), 1, "only the upsert");
    tollgate.wait_for_log("expire_client");
    let lines = lines(&tollgate);
    let [upsert, expiry] = lines.as_slice() else { panic!("{lines:#?}") };
    let of = |field: &str| expiry[field].as_str().unwrap();
    assert_eq!([of("who"), of("action"), of("what")], ["tollgate", "expire_client", "d|k=acme"]);
    assert_eq!((&expiry["before"], of("after")), (&upsert["after"], "none"));
    assert_eq!(operator.get(acme(0)).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn change_of_a_policy_or_a_mode_is_a_line_too() {
    let tollgate = Options::serving(POLICY).env("TOLLGATE__ADMIN__TOKEN", "s3cret").start();
    let operator = Operator::of(&tollgate).await.with("Bearer s3cret");
    operator.apply(OTHER).await;
    let [action, what, before, first] = last(&tollgate, 1);
    assert_eq!((&*action, &*what, &*before), ("apply_policy", "e", "none"));
    assert!(first.starts_with("sha256 ") && first.ends_with(", 83 bytes"), "{first}");
    operator.apply(&OTHER.replace('7', "8")).await;
    let [_, _, before, second] = last(&tollgate, 2);
    assert_eq!(before, first);
    assert_ne!(second, first, "the text is another");
    operator.delete_policy("e").await;
    assert_eq!(last(&tollgate, 3), ["delete_policy", "e", &*second, "none"]);

    operator.set_mode("d", Mode::Shadow).await;
    assert_eq!(last(&tollgate, 4), ["set_mode", "d", "by settings", "shadow"]);
    operator.set_mode("d", Mode::Unspecified).await;
    assert_eq!(last(&tollgate, 5), ["set_mode", "d", "shadow", "by settings"]);
    operator.set_mode("", Mode::Off).await;
    assert_eq!(last(&tollgate, 6), ["set_mode", "all", "by settings", "off"]);
}

#[tokio::test]
async fn what_changes_nothing_is_no_change_in_the_log_and_strangers_are_noted() {
    let tollgate = Options::serving(POLICY).env("TOLLGATE__ADMIN__TOKEN", "s3cret").start();
    let stranger = Operator::of(&tollgate).await.with("Bearer guessed");
    stranger.upsert(acme(5)).await.unwrap_err();
    let refused = tollgate.wait_for_log("tollgate::audit");
    let refused: Value = serde_json::from_str(&refused).unwrap();
    assert_eq!(refused["level"], "WARN");
    assert!(refused["who"].as_str().unwrap().starts_with("127.0.0.1:"), "{refused}");

    let operator = Operator::of(&tollgate).await.with("Bearer s3cret");
    operator.validate(upsert(acme(5))).await.unwrap();
    operator.upsert(Client { limits: Vec::new(), ..acme(5) }).await.unwrap_err();
    operator.upsert(Client { etag: "99".to_owned(), ..acme(5) }).await.unwrap_err();
    operator.upsert(acme(5)).await.unwrap();
    // The second line, as none came between.
    assert_eq!(last(&tollgate, 2)[..2], ["upsert_client", "d|k=acme"]);
    let log = tollgate.log().join("\n");
    assert!(!log.contains("s3cret") && !log.contains("guessed"), "{log}");
}

#[tokio::test]
async fn sensitive_values_are_hashes_in_the_log_as_in_answers() {
    let options = Options::serving(POLICY).env("TOLLGATE__ADMIN__TOKEN", "s3cret");
    let tollgate = options.env("TOLLGATE__SENSITIVE_KEY", "pepper").start();
    let operator = Operator::of(&tollgate).await.with("Bearer s3cret");
    operator.upsert(client("d", ("secret", "hunter2"), limit(5, pb::Unit::Day))).await.unwrap();
    let [_, what, _, _] = last(&tollgate, 1);
    let asked = request("d", &[&[("secret", "hunter2")]]);
    let answer = metadata(&ask(&mut tollgate.client().await, asked).await);
    let told = answer["descriptors"][0]["client"].as_str().unwrap();
    assert_eq!(what, format!("d|{told}"));
    let hash = told.strip_prefix("secret=").unwrap();
    assert!(hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
    assert!(!tollgate.log().join("\n").contains("hunter2"));
}

#[tokio::test]
async fn metadata_of_an_answer_names_the_client_and_has_what_the_client_has() {
    let tollgate = Options::serving(POLICY).start();
    let operator = Operator::of(&tollgate).await;
    let tier = Kind::StringValue("gold".to_owned()).into();
    let own = Some(Struct { fields: [("tier".to_owned(), tier)].into() });
    operator.upsert(Client { metadata: own, ..acme(1) }).await.unwrap();
    let entry = |key: &str, value: &str| pb::Entry {
        key: key.to_owned(),
        value: value.to_owned(),
        hashed: false,
    };
    let entries = vec![entry("a", "x|y"), entry("b", "100%")];
    operator.upsert(Client { entries, ..acme(1) }).await.unwrap();

    let mut caller = tollgate.client().await;
    let of_client = request("d", &[&[("k", "acme")], &[("k", "other")]]);
    let answer = metadata(&ask(&mut caller, of_client.clone()).await);
    assert_eq!(answer["descriptors"][0]["client"], "k=acme");
    assert_eq!(answer["descriptors"][0]["rule"], "k", "the rule that it matches all the same");
    assert_eq!(answer["descriptors"][1]["client"], Value::Null, "by the rule");
    assert_eq!(answer["metadata"], json!({"tier": "gold"}));
    let denied = metadata(&ask(&mut caller, of_client).await);
    let first = &denied["descriptors"][0];
    assert_eq!((&first["client"], &first["over_limit"]), (&json!("k=acme"), &json!(true)));
    assert_eq!(first["limits_over"], json!(["1 per day"]));
    assert_eq!(denied["metadata"], Value::Null, "of clients that are not over their limit");

    let answer = ask(&mut caller, request("d", &[&[("a", "x|y"), ("b", "100%")]])).await;
    let told = &metadata(&answer)["descriptors"][0];
    let entries = told["entries"].as_array().unwrap().iter().map(|e| e.as_str().unwrap());
    assert_eq!(told["client"], entries.collect::<Vec<_>>().join("|"), "escaped alike");
    assert_eq!(told["rule"], Value::Null, "no rule matches it");
}
