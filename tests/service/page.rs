//! The status page, in a real browser: it follows what happens, searches, explains, runs nothing that it was not served,
//! and fits a phone. With `UPDATE_DOCS=1` its pictures in the docs are made anew.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use prost_types::Timestamp;
use serde_json::{Value, json};
use tollgate::domain::clock::{Clock as _, SystemClock};
use tollgate::edge::admin::pb::SetScaleRequest;
use tollgate::edge::admin::pb::Unit::Day;
use tollgate::edge::pb::rate_limit_response::Code;

use crate::support::browser::Browser;
use crate::support::grpc::{ask, codes, with_hits};
use crate::support::http;
use crate::support::operator::{Operator, client, limit};
use crate::support::tollgate::{Options, Tollgate, request};

const POLICIES: &str = "
domain: shop
descriptors:
  - {key: api_key, rate_limit: {name: per-key, unit: minute, requests_per_unit: 600}}
  - {key: user, rate_limit: {unit: day, requests_per_unit: 20}}
  - {key: trial, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 5}}
  - {key: job, rate_limit: {name: slots, algorithm: concurrency, max: 4, ttl: 1m}}
  - {key: batch, rate_limit: {algorithm: concurrency, max: 8, ttl: 1m}}
  - {key: secret, sensitive: true, rate_limit: {unit: day, requests_per_unit: 5}}
  - {key: tokens, rate_limit: {unit: day, requests_per_unit: 900, hold: {estimate: {default: 40}}}}
";

/// A name that is markup; in the pictures of the docs, another one.
fn hostile() -> &'static str {
    if is_for_docs() { "mallory" } else { "<img src=x onerror=alert(1)>" }
}

fn is_for_docs() -> bool {
    std::env::var_os("UPDATE_DOCS").is_some()
}

fn state(tollgate: &Tollgate) -> Value {
    serde_json::from_str(&http::get(tollgate.at.http, "/status/state.json").body).unwrap()
}

/// Requests until it is dropped.
struct Traffic(Arc<AtomicBool>);

impl Traffic {
    fn start(tollgate: &Tollgate) -> Self {
        let (stop, address) = (Arc::new(AtomicBool::new(false)), tollgate.at.grpc);
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut client =
                    tollgate::edge::pb::rate_limit_service_client::RateLimitServiceClient::new(
                        Tollgate::channel(address).await,
                    );
                for i in 0_u32.. {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    let (key, value) = match i % 10 {
                        0..5 => ("api_key", format!("key-{}", i % 7)),
                        5..7 => ("user", hostile().to_owned()),
                        7 => ("user", format!("user-{}", i % 13)),
                        8 => ("batch", "nightly".to_owned()),
                        _ => ("trial", "newcomer".to_owned()),
                    };
                    let asked = request("shop", &[&[(key, value.as_str())]]);
                    if client.should_rate_limit(asked).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(4)).await;
                }
            });
        });
        Self(stop)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Takes the picture of the docs once the chart has some seconds.
fn picture(browser: &mut Browser, name: &str) {
    if !is_for_docs() {
        return;
    }
    browser.value("document.activeElement.blur(), scrollTo(0, 0)");
    std::thread::sleep(Duration::from_secs(40));
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
    std::fs::create_dir_all(&dir).unwrap();
    browser.picture(&dir.join(name));
}

async fn started() -> Tollgate {
    let tollgate = Options::serving(POLICIES).start();
    let operator = Operator::of(&tollgate).await;
    for (value, requests) in [("acme", 100), ("globex", 50), (hostile(), 7)] {
        operator.upsert(client("shop", ("api_key", value), limit(requests, Day))).await.unwrap();
    }
    tollgate
}

/// Searches and explains without a pointer.
fn by_keyboard_alone(browser: &mut Browser) {
    browser.value("document.querySelector('#search input').focus()");
    browser.write("acme");
    browser.press("Enter");
    browser.wait_for("document.querySelectorAll('#clients tr').length === 2");
    browser.wait_for(
        "document.querySelector('#clients').textContent.includes('shop api_key=acme100/DAY')",
    );
    browser.value("document.querySelector('#explain input').focus()");
    browser.write("shop");
    browser.press("Tab");
    browser.write("user=somebody");
    browser.press("Enter");
    browser.wait_for("document.querySelector('#explained').textContent.includes('passes')");
    browser.wait_for("document.querySelector('#explained').textContent.includes('20/DAY')");
    browser.value("document.querySelector('#explain input').select()");
    browser.press("Tab");
    browser.write("batch=somebody");
    browser.press("Enter");
    let turned = "The rule is at 75 % by operator, until it is taken back.";
    for text in [turned, "6 at a time"] {
        browser.wait_for(&format!(
            "document.querySelector('#explained').textContent.includes({})",
            json!(text)
        ));
    }
    browser.value("document.querySelector('#explain input').select()");
    browser.press("Tab");
    browser.write("without a value");
    browser.press("Enter");
    browser.wait_for("document.querySelector('#explained .bad') !== null");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_follows_searches_explains_and_fits() {
    let Some(mut browser) = Browser::start() else { return };
    let mut tollgate = started().await;
    let address = format!("http://{}/", tollgate.at.http);
    Operator::of(&tollgate).await.turn("shop", "batch", 75.0).await;
    let traffic = Traffic::start(&tollgate);
    browser.open(&address, (1280, 900), false);
    let rate = "Number(document.querySelector('#legend li[data-outcome=\"over_limit\"]')?.textContent.split(' ').at(-1)) > 0";
    browser.wait_for(rate);
    browser.wait_for("document.querySelectorAll('#chart polygon').length >= 2");
    let decisions = "[...document.querySelectorAll('#rules td:nth-child(5)')].map((cell) => Number(cell.textContent)).reduce((a, b) => a + b)";
    let before = browser.value(decisions).as_f64().unwrap();
    browser.wait_for(&format!("{decisions} > {before}"));

    // What callers and operators write is text.
    browser.wait_for(&format!(
        "document.querySelector('#limited').textContent.includes({})",
        json!(hostile())
    ));
    browser.wait_for("document.querySelectorAll('#clients tr').length === 4");

    let batch = "[...document.querySelectorAll('#rules tr')].map((row) => row.textContent).find((text) => text.startsWith('shopbatch'))";
    let turned = "batch at 75 % by operator, until it is taken back8 at a time";
    browser.wait_for(&format!("{batch}?.includes({})", json!(turned)));
    assert_eq!(browser.value("document.images.length"), json!(0));

    by_keyboard_alone(&mut browser);
    // The last of these is the 400 for what is no descriptor.
    let faults = browser.faults();
    assert!(faults.len() == 1 && faults[0].contains("status of 400"), "{faults:#?}");

    browser.value("document.querySelector('#search input').value = ''");
    browser.value("document.querySelector('#search button').click()");
    browser.value("document.querySelector('#explain').reset(), document.querySelector('#explained').replaceChildren()");
    picture(&mut browser, "status-light.png");
    browser.open(&address, (1280, 900), true);
    browser.wait_for("document.querySelectorAll('#chart polygon').length >= 2");
    let ground = "getComputedStyle(document.body).backgroundColor";
    let dark = browser.value(ground);
    picture(&mut browser, "status-dark.png");
    browser.value("document.querySelector('#theme').click()");
    assert_ne!(browser.value(ground), dark, "the switch makes it light");

    browser.open(&address, (360, 740), false);
    browser.wait_for("document.querySelectorAll('#chart polygon').length >= 2");
    let wide = "document.documentElement.scrollWidth";
    assert_eq!(browser.value(wide), json!(360), "nothing is wider than the phone");
    picture(&mut browser, "status-phone.png");

    let foreign: Vec<String> =
        browser.addresses().into_iter().filter(|asked| !asked.starts_with(&address)).collect();
    assert_eq!(foreign, Vec::<String>::new());

    // It says that it is stale, and goes on after a restart.
    drop(traffic);
    let listen = format!("http.listen={}", tollgate.at.http);
    tollgate.signal("TERM");
    tollgate.wait();
    browser.wait_for("document.body.classList.contains('stale')");
    drop(tollgate);
    let again = Options::serving(POLICIES).set(listen).start();
    browser.wait_for("!document.body.classList.contains('stale')");
    drop(again);
}

#[tokio::test]
async fn state_is_bounded_and_has_no_secrets() {
    let tollgate = started().await;
    let mut client = tollgate.client().await;
    for value in ["hunter2-a", "hunter2-b"] {
        let asked = with_hits(request("shop", &[&[("secret", value)]]), 9);
        ask(&mut client, asked).await;
    }
    let seen = state(&tollgate);
    assert_eq!(seen["outcomes"], json!({"over_limit": 2}));
    assert_eq!(seen["requests"]["over_limit"], 2);
    assert_eq!(seen["rules"][0]["rule"], "secret");
    assert_eq!(seen["rules"][0]["hits"], 18);
    assert_eq!(seen["limited"].as_array().unwrap().len(), 2);
    assert_eq!((&seen["clients"], &seen["store_up"]), (&json!(3), &json!(true)));
    assert_eq!(seen["modes"], json!([{"domain": "", "mode": "enforce"}]));
    assert!(seen["checks"].as_array().unwrap().iter().all(|check| check["ok"] == true), "{seen}");
    assert!(!seen.to_string().contains("hunter2"), "{seen}");
    let explained =
        http::get(tollgate.at.http, "/status/explain.json?domain=shop&entry=secret%3Dhunter2-a");
    assert!(!explained.body.contains("hunter2"), "{}", explained.body);
    let explained: Value = serde_json::from_str(&explained.body).unwrap();
    assert_eq!(
        (&explained["admitted"], &explained["limits"][0]["remaining"]),
        (&json!(true), &json!(4))
    );
    let held = http::get(tollgate.at.http, "/status/explain.json?domain=shop&entry=tokens=x").body;
    let held: Value = serde_json::from_str(&held).unwrap();
    assert_eq!(held["limits"][0]["estimate"], 40);
    assert_eq!(held["limits"][0]["estimate_source"], "rule");
    // Explaining charges nothing.
    let again = http::get(
        tollgate.at.http,
        "/status/explain.json?domain=shop&entry=secret%3Dhunter2-a&hits=6",
    );
    let again: Value = serde_json::from_str(&again.body).unwrap();
    assert_eq!((&again["admitted"], &again["limits"][0]["remaining"]), (&json!(false), &json!(5)));
    for (query, fault) in [
        ("", "domain is missing"),
        ("?domain=shop", "entry is missing"),
        ("?domain=shop&entry=a", "entry \"a\" is no KEY=VALUE"),
        ("?domain=shop&entry=a=b&hits=many", "hits \"many\" is no number"),
    ] {
        let refused = http::get(tollgate.at.http, &format!("/status/explain.json{query}"));
        assert!(refused.status == 400 && refused.body.contains(fault), "{query}: {refused:?}");
    }
    let found = |query: &str| -> Value {
        let body = http::get(tollgate.at.http, &format!("/status/clients.json{query}")).body;
        serde_json::from_str(&body).unwrap()
    };
    assert_eq!(found("")["clients"].as_array().unwrap().len(), 3);
    assert_eq!(found("?text=glob")["clients"][0]["limits"], json!(["50/DAY"]));
    assert_eq!(found("?domain=other"), json!({"clients": [], "total": 0, "more": false}));
    assert_eq!(http::post(tollgate.at.http, "/status/state.json", "").status, 405);
}

#[tokio::test]
async fn turned_rules_and_slots_say_so() {
    let tollgate = started().await;
    let operator = Operator::of(&tollgate).await;
    let (scale, expires_at) = in_an_hour("shop", "job", 50.0);
    operator.policies().set_scale(scale).await.unwrap();
    operator.upsert(client("shop", ("job", "large"), limit(10, Day))).await.unwrap();
    let mut caller = tollgate.client().await;
    let found = codes(&mut caller, &request("shop", &[&[("job", "a")]]), 3).await;
    assert_eq!(found, [Code::Ok, Code::Ok, Code::OverLimit], "half of four slots");
    codes(&mut caller, &request("shop", &[&[("user", "a")]]), 2).await;
    let seen = state(&tollgate);
    let rules = seen["rules"].as_array().unwrap();
    let scale = json!({"percent": 50.0, "by": "operator", "expires_at": expires_at});
    let scales: Vec<_> = rules.iter().map(|rule| (&rule["rule"], &rule["scale"])).collect();
    assert_eq!(scales, [(&json!("job"), &scale), (&json!("user"), &Value::Null)]);

    let get = |path: &str| -> Value {
        serde_json::from_str(&http::get(tollgate.at.http, path).body).unwrap()
    };
    let found = get("/status/clients.json?text=job");
    assert_eq!(found["clients"][0]["limits"], json!(["10 at a time"]));
    for (value, limit) in [("a", "slots: 2 at a time"), ("large", "5 at a time")] {
        let path = format!("/status/explain.json?domain=shop&entry=job%3D{value}");
        let explained = get(&path);
        let shown = (&explained["limits"][0]["limit"], &explained["scale"]);
        assert_eq!(shown, (&json!(limit), &scale), "{value}");
    }
    let explained = get("/status/explain.json?domain=shop&entry=user%3Da");
    let shown = (&explained["limits"][0]["limit"], &explained["scale"]);
    assert_eq!(shown, (&json!("20/DAY"), &Value::Null));
}

/// A scale that ends in an hour, and the second in which it does.
fn in_an_hour(domain: &str, rule: &str, percent: f64) -> (SetScaleRequest, i64) {
    let now = Duration::from_micros(SystemClock::start().now().as_micros());
    let expires_at = Timestamp::from(UNIX_EPOCH + now + Duration::from_hours(1));
    let seconds = expires_at.seconds;
    let (domain, rule) = (domain.to_owned(), rule.to_owned());
    let expires_at = Some(expires_at);
    (SetScaleRequest { domain, rule, percent, expires_at, ..Default::default() }, seconds)
}

#[tokio::test]
async fn page_is_guarded_moved_and_switched_off() {
    let tollgate = Options::serving(POLICIES).start();
    for path in [
        "/",
        "/status/page.css",
        "/status/page.js",
        "/status/chart.js",
        "/status/tables.js",
        "/status/icon.svg",
    ] {
        let answer = http::get(tollgate.at.http, path);
        assert_eq!(answer.status, 200, "{path}");
        let policy = "content-security-policy: default-src 'none'; script-src 'self'";
        assert!(answer.head.contains(policy), "{}", answer.head);
        for header in ["x-content-type-options: nosniff", "cache-control: no-store"] {
            assert!(answer.head.contains(header), "{}", answer.head);
        }
        for inline in ["<style", "style=", "onclick", "http://", "https://"] {
            let allowed = inline == "http://" && answer.body.contains("http://www.w3.org/2000/svg");
            assert!(!answer.body.contains(inline) || allowed, "{path} has {inline}");
        }
    }
    let moved = Options::serving(POLICIES).set("http.status_listen=127.0.0.1:0").start();
    assert_eq!(http::get(moved.at.http, "/").status, 404);
    let at = moved.at.status.unwrap();
    assert_eq!(http::get(at, "/").status, 200);
    assert_eq!(http::get(at, "/metrics").status, 404);
    let off = Options::serving(POLICIES).set("http.status=false").start();
    assert_eq!(http::get(off.at.http, "/").status, 404);
    assert_eq!(http::get(off.at.http, "/status/state.json").status, 404);
}
