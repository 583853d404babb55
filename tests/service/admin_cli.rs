//! `tollgate admin` against a real tollgate: every command, and what operators read when one fails.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Stdio;

use serde_json::Value;

use crate::support::grpc::codes;
use crate::support::redis::free_port;
use crate::support::tollgate::{Options, Tollgate, command, request};

const POLICY: &str = "
domain: d
descriptors:
  - key: user
    rate_limit: {name: per-user, unit: hour, requests_per_unit: 3}
  - key: shadowed
    shadow_mode: true
    rate_limit: {unit: hour, requests_per_unit: 3}
";

/// The output of a command, and its exit code.
#[derive(Debug)]
pub struct Printed {
    code: Option<i32>,
    pub out: String,
    err: String,
}

impl Printed {
    /// Standard output of a command that succeeded without a warning.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!((self.code, &*self.err), (Some(0), ""), "{self:#?}");
        &self.out
    }

    /// Standard error of a command that ended with `code` and printed nothing.
    #[track_caller]
    pub fn failed(&self, code: i32) -> &str {
        assert_eq!((self.code, &*self.out), (Some(code), ""), "{self:#?}");
        &self.err
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(self.ok()).unwrap()
    }
}

/// Runs `tollgate admin` with these words, and `input` as standard input.
fn admin_at(address: &str, token: Option<&str>, args: &[&str], input: &str) -> Printed {
    let mut command = command();
    command.arg("admin").args(args).env("TOLLGATE_ADMIN_ADDRESS", address);
    if let Some(token) = token {
        command.env("TOLLGATE_ADMIN_TOKEN", token);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("tollgate runs");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A command that does not read it closes it.
    let writer = std::thread::spawn(move || _ = stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Printed { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A line of words against `tollgate`.
pub fn admin(tollgate: &Tollgate, line: &str) -> Printed {
    let args: Vec<_> = line.split_whitespace().collect();
    admin_at(&format!("http://{}", tollgate.at.admin), None, &args, "")
}

pub fn import(tollgate: &Tollgate, lines: &str, args: &[&str]) -> Printed {
    let args = [&["import"], args].concat();
    // Without a scheme, as people type it.
    admin_at(&tollgate.at.admin.to_string(), None, &args, lines)
}

/// The number of requests that pass, of so many.
async fn passed(tollgate: &Tollgate, entries: &[(&str, &str)], times: usize) -> usize {
    let mut client = tollgate.client().await;
    let codes = codes(&mut client, &request("d", &[entries]), times).await;
    codes.iter().filter(|code| code.as_str_name() == "OK").count()
}

#[tokio::test]
async fn limit_is_in_force_at_once_and_none_brings_the_rule_back() {
    let tollgate = Options::serving(POLICY).start();
    let line = "limit d user=alice 500/hour --burst 2 --for 1h --label ticket=4711";
    let printed = admin(&tollgate, line);
    assert!(printed.ok().starts_with("d user=alice: 500/hour burst 2 until 20"), "{printed:?}");
    assert_eq!(passed(&tollgate, &[("user", "alice")], 4).await, 2);

    let printed = admin(&tollgate, "explain d user=alice --hits 2");
    for part in [
        "over limit\n",
        "decided   by the client user=alice\n",
        "rule      user at ",
        "limit     500/hour burst 2",
        "denied for ",
        "counter   tollgate:1:{d|user=alice}:token_bucket:3600s\n",
    ] {
        assert!(printed.ok().contains(part), "no {part:?} in {printed:#?}");
    }

    // Labels stay; what is not named again goes.
    let printed = admin(&tollgate, "limit d user=alice 10/second 1000/5hours --json").json();
    assert_eq!(printed["client"]["labels"]["ticket"], "4711");
    assert_eq!(printed["client"]["limits"][1]["unit_multiplier"], 5);
    assert_eq!(printed["client"]["expires_at"], Value::Null);
    assert_eq!(printed["before"]["limits"][0]["burst"], 2);

    assert_eq!(
        admin(&tollgate, "list d").ok(),
        "d user=alice: 10/second and 1000/5hours\n1 client\n"
    );
    assert_eq!(
        admin(&tollgate, "limit d user=alice none").ok(),
        "d user=alice: by the rule again (was 10/second and 1000/5hours)\n"
    );
    let again = admin(&tollgate, "limit d user=alice none");
    assert!(again.failed(1).contains("no limit of its own"), "{again:?}");
    let printed = admin(&tollgate, "explain d user=alice");
    assert!(printed.ok().contains("decided   by the rule\n"), "{printed:#?}");
}

#[tokio::test]
async fn block_denies_also_under_a_shadow_rule_and_unblock_takes_only_a_block_back() {
    let tollgate = Options::serving(POLICY).start();
    let shadowed = [("shadowed", "x")];
    assert_eq!(passed(&tollgate, &shadowed, 5).await, 5);
    assert_eq!(admin(&tollgate, "block d shadowed=x").ok(), "d shadowed=x: blocked\n");
    assert_eq!(passed(&tollgate, &shadowed, 2).await, 0);
    assert_eq!(
        admin(&tollgate, "unblock d shadowed=x").ok(),
        "d shadowed=x: by the rule again (was blocked)\n"
    );
    assert_eq!(passed(&tollgate, &shadowed, 2).await, 2);
    let again = admin(&tollgate, "unblock d shadowed=x");
    assert!(again.failed(1).contains("no limit of its own"), "{again:?}");

    admin(&tollgate, "limit d user=bob 7/day").ok();
    let other = admin(&tollgate, "unblock d user=bob");
    assert!(other.failed(1).contains("its limit is 7/day"), "{other:?}");
    assert!(other.err.contains("tollgate admin limit d user=bob none"), "{other:?}");
    let block = admin(&tollgate, "block d user=bob --for 1h");
    assert!(block.ok().starts_with("d user=bob: blocked until 20"), "{block:?}");
    assert!(block.out.ends_with("Z (was 7/day)\n"), "{block:?}");
}

#[tokio::test]
async fn several_entries_are_one_descriptor_and_values_may_have_equals_signs() {
    let tollgate = Options::serving(POLICY).start();
    let args = ["limit", "d", "path=/a?b=c d", "user=", "unlimited"];
    let printed = admin_at(&tollgate.at.admin.to_string(), None, &args, "");
    assert_eq!(printed.out, "d 'path=/a?b=c d' user=: unlimited\n");
    assert!(printed.err.starts_with("warning: entries: no rule matches them"), "{printed:?}");
    let list = admin(&tollgate, "list --json").json();
    assert_eq!(list["client"]["entries"][0]["value"], "/a?b=c d");
    assert_eq!(list["client"]["entries"][1]["value"], "");
}

#[tokio::test]
async fn reset_empties_the_counters_of_any_descriptor() {
    let tollgate = Options::serving(POLICY).start();
    admin(&tollgate, "limit d user=alice 2/day").ok();
    assert_eq!(passed(&tollgate, &[("user", "alice")], 3).await, 2);
    assert_eq!(admin(&tollgate, "reset d user=alice").ok(), "d user=alice: 1 counter emptied\n");
    assert_eq!(passed(&tollgate, &[("user", "alice")], 3).await, 2);
    assert_eq!(admin(&tollgate, "reset d user=alice --json").json()["counters_reset"], 1);
    let other = passed(&tollgate, &[("user", "bob")], 9).await;
    assert_eq!(admin(&tollgate, "reset d user=bob").ok(), "d user=bob: 1 counter emptied\n");
    assert_eq!(passed(&tollgate, &[("user", "bob")], 9).await, other, "limited by the rule");
    let unknown = admin(&tollgate, "reset x user=bob");
    assert_eq!(unknown.out, "x user=bob: nothing was used\n");
    assert_eq!(
        unknown.err,
        "warning: domain: no policy and no client names it, so nothing counts\n"
    );
}

#[tokio::test]
async fn mode_is_set_for_a_domain_or_for_all_and_given_back_to_the_settings() {
    let tollgate = Options::serving(POLICY).start();
    let user = [("user", "x")];
    assert_eq!(admin(&tollgate, "mode shadow --domain d").ok(), "d: shadow\n");
    assert_eq!(passed(&tollgate, &user, 5).await, 5);
    let explained = admin(&tollgate, "explain d user=x");
    assert!(explained.ok().starts_with("ok\nmode      shadow\n"), "{explained:?}");
    assert_eq!(admin(&tollgate, "mode settings --domain d").ok(), "d: enforce\n");
    assert_eq!(passed(&tollgate, &user, 2).await, 0);
    assert_eq!(admin(&tollgate, "mode off").ok(), "all domains: off\n");
    assert_eq!(admin(&tollgate, "mode settings --json").json()["mode"], "enforce");
    let unknown = admin(&tollgate, "mode off --domain typo");
    assert_eq!((unknown.code, &*unknown.out), (Some(0), "typo: off\n"));
    assert!(unknown.err.contains("names the domain typo"), "{unknown:?}");
}

#[tokio::test]
async fn explain_tells_what_nothing_limits() {
    let tollgate = Options::serving(POLICY).start();
    for (line, part) in [
        (
            "explain d user=new",
            "limit     3/hour sliding_window slots 10 name per-user: passes, 2 left",
        ),
        ("explain d other=x", "decided   by nothing: no rule and no client matches\n"),
        ("explain typo user=x", "no limit  no policy and no client names the domain typo\n"),
    ] {
        let printed = admin(&tollgate, line);
        assert!(printed.ok().starts_with("ok\n") && printed.out.contains(part), "{printed:#?}");
    }
    let json = admin(&tollgate, "explain d user=new --json").json();
    assert_eq!(json["descriptors"][0]["counters"][0]["remaining"], 2);
    assert_eq!(json["overall_code"], "OK");
}

/// A line of `export` for a client of so many requests a day.
fn line(value: &str, requests: u32) -> String {
    format!(
        r#"{{"client":{{"domain":"d","entries":[{{"key":"user","value":"{value}"}}],"limits":[{{"requests_per_unit":{requests},"unit":"DAY"}}]}}}}"#
    )
}

const APPLIED: &str = r#"{"policy":{"domain":"orders","yaml":"domain: orders\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 1}}]\n"}}"#;

const FULL: &str = r#"{"client":{"domain":"d","entries":[{"key":"user","value":"full"}],"limits":[{"requests_per_unit":5,"unit":"MINUTE","unit_multiplier":5,"name":"n","algorithm":"TOKEN_BUCKET","burst":7,"charge":"ALWAYS","max_debt":9,"on_store_failure":"DENY"}],"shadow_mode":false,"quota_mode":false,"metadata":{"a":[1.5,null]},"labels":{"l":"m"},"expires_at":"2100-01-01T00:00:00Z"}}"#;

/// The lines of an export without what differs between servers.
pub fn without_etags(lines: &str) -> Vec<String> {
    let bare = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        for kind in ["client", "plan", "policy"] {
            if let Some(record) = value.get_mut(kind).and_then(Value::as_object_mut) {
                assert!(record.remove("etag").is_some() && record.remove("updated_at").is_some());
            }
        }
        value.to_string()
    };
    lines.lines().map(bare).collect()
}

fn sorted(line: &str) -> String {
    serde_json::from_str::<Value>(line).unwrap().to_string()
}

#[tokio::test]
async fn export_is_imported_elsewhere_and_only_what_differs_is_written() {
    let (here, there) = (Options::serving(POLICY).start(), Options::serving(POLICY).start());
    // More than a batch and more than a page.
    let clients: Vec<_> = (1_000..2_500).map(|i| line(&i.to_string(), 9)).collect();
    let lines = format!("{FULL}\n\n{APPLIED}\n{}\n", clients.join("\n"));
    let dry = import(&here, &lines, &["--dry-run"]);
    let counts =
        "policies: 1 new, 0 changed, 0 unchanged\nclients: 1501 new, 0 changed, 0 unchanged\n";
    assert_eq!(dry.ok(), format!("{counts}dry run: nothing was written\n"));
    assert_eq!(admin(&here, "list").ok(), "0 clients\n");
    assert_eq!(import(&here, &lines, &[]).ok(), counts);

    let exported = admin(&here, "export");
    let mut expected = vec![sorted(APPLIED)];
    expected.extend(clients.iter().map(|line| sorted(line)));
    expected.push(sorted(FULL));
    assert_eq!(without_etags(exported.ok()), expected);
    import(&there, exported.ok(), &[]).ok();
    assert_eq!(without_etags(admin(&there, "export").ok()), expected);

    let changed = exported.out.replacen("\"requests_per_unit\":9", "\"requests_per_unit\":8", 2);
    assert_eq!(
        import(&there, &changed, &[]).ok(),
        "policies: 0 new, 0 changed, 1 unchanged\nclients: 0 new, 2 changed, 1499 unchanged\n"
    );
    let again = import(&there, &changed, &["--json"]).json();
    assert_eq!(again["clients"]["unchanged"], 1_501);
    assert_eq!(admin(&there, "export orders").ok().lines().count(), 1);
}

#[tokio::test]
async fn import_writes_nothing_when_a_line_is_bad() {
    let tollgate = Options::serving(POLICY).start();
    let good = line("good", 1);
    let expired = FULL.replace("2100-01-01", "2001-01-01");
    for (bad, part) in [
        ("{\"client\":".to_owned(), "line 2: EOF"),
        ("null".to_owned(), "line 2: "),
        (line("x", 1).replace("DAY", "day"), "line 2: unit has no value \"day\""),
        (line("x", 1).replace("\"requests_per_unit\":1,", ""), "line 2: a limit has neither"),
        (line("x", 1).replace("entries", "entrys"), "line 2: unknown field `entrys`"),
        (good.clone(), "line 2: is the client of line 1"),
        // Readable, and refused by the server.
        (
            line("x", 1).replace("\"unit\":\"DAY\"", "\"burst\":5"),
            "line 2: limits[0].unit is required",
        ),
        (line("x", 1).replace("\"d\"", "\"\""), "line 2: domain must not be empty"),
        (APPLIED.replace("day", "dya"), "line 2: "),
    ] {
        let printed = import(&tollgate, &format!("{good}\n{bad}\n"), &[]);
        assert!(printed.failed(1).contains("nothing was written\n"), "{bad}: {printed:?}");
        assert!(printed.err.contains(part), "{bad}: {printed:?}");
        assert_eq!(admin(&tollgate, "list").ok(), "0 clients\n", "{bad}");
    }
    let many = "x\n".repeat(30);
    let printed = import(&tollgate, &many, &[]);
    assert!(printed.failed(1).contains("line 20: ") && !printed.err.contains("line 21: "));
    assert!(printed.err.contains("10 more faults"), "{printed:?}");
    assert_eq!(
        import(&tollgate, &format!("{good}\n{expired}\n"), &[]).ok(),
        "policies: 0 new, 0 changed, 0 unchanged\n\
         clients: 1 new, 0 changed, 0 unchanged, 1 expired and left out\n"
    );
    let missing = admin(&tollgate, "import /nonexistent.jsonl");
    assert!(missing.failed(1).contains("/nonexistent.jsonl"), "{missing:?}");
}

#[test]
fn token_comes_from_a_file_or_a_variable_and_is_never_shown() {
    let tollgate = Options::serving(POLICY).env("TOLLGATE__ADMIN__TOKEN", "s3cret").start();
    let address = format!("http://{}", tollgate.at.admin);
    let at = |token, args: &[&str]| admin_at(&address, token, args, "");
    assert_eq!(at(Some("s3cret"), &["list"]).ok(), "0 clients\n");
    let file = tollgate.dir().join("token");
    fs::write(&file, "s3cret\n").unwrap();
    let file = file.display().to_string();
    // The file goes before the variable.
    assert_eq!(at(Some("wrong"), &["--token-file", &file, "list"]).ok(), "0 clients\n");
    for token in [None, Some("gu3ss")] {
        let printed = at(token, &["list"]);
        for part in [&*address, "--token-file", "TOLLGATE_ADMIN_TOKEN"] {
            assert!(printed.failed(1).contains(part), "no {part} in {printed:?}");
        }
        assert!(!printed.err.contains("gu3ss"), "{printed:?}");
    }
    let printed = at(None, &["--token-file", "/nonexistent", "list"]);
    assert!(printed.failed(2).contains("--token-file /nonexistent: "), "{printed:?}");
    let printed = at(Some("gu3ss\u{7}"), &["list"]);
    assert!(printed.failed(2).contains("TOLLGATE_ADMIN_TOKEN holds bytes"), "{printed:?}");
    assert!(!printed.err.contains("gu3ss"), "{printed:?}");
}

#[test]
fn server_that_is_away_or_another_one_is_told_with_its_address() {
    let away = format!("http://127.0.0.1:{}", free_port());
    let printed = admin_at(&away, None, &["list"], "");
    for part in [&*away, "onnection refused", "--address", "TOLLGATE_ADMIN_ADDRESS"] {
        assert!(printed.failed(69).contains(part), "no {part} in {printed:?}");
    }
    // Accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let printed = admin_at(&address, None, &["list", "--timeout", "200ms"], "");
    for part in [&*address, "200ms", "a change may have happened"] {
        assert!(printed.failed(69).contains(part), "no {part} in {printed:?}");
    }
    let tollgate = Options::serving(POLICY).start();
    let printed = admin_at(&tollgate.at.grpc.to_string(), None, &["list"], "");
    assert!(printed.failed(1).contains("is this the admin listener"), "{printed:?}");
    let mut buffer = [0; 3];
    silent.accept().unwrap().0.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"PRI", "it was asked over HTTP/2");
}

#[test]
fn wrong_words_are_refused_before_anything_is_sent() {
    let away = format!("http://127.0.0.1:{}", free_port());
    for (line, part) in [
        ("limit d user=alice 500", "REQUESTS/PERIOD"),
        ("limit d user=alice 500/fortnight", "second, minute, hour"),
        ("limit d user 5/day", "KEY=VALUE"),
        ("limit d user=alice", "the limit is missing"),
        ("limit d 5/day", "the descriptor is missing"),
        ("limit d user=alice blocked", "tollgate admin block"),
        ("limit d user=alice none 5/day", "none stands alone"),
        ("limit d user=alice unlimited --burst 5", "unlimited has neither"),
        ("limit d user=alice 5/day --burst 0", "--burst must be at least 1"),
        ("limit d user=alice 5/day --for 1", "--for"),
        ("block d 203.0.113.7", "KEY=VALUE"),
        ("mode loud", "enforce, shadow, off, settings"),
        ("list --token s3cret", "--token"),
    ] {
        let args: Vec<_> = line.split_whitespace().collect();
        let printed = admin_at(&away, None, &args, "");
        assert!(printed.failed(2).contains(part), "{line}: {printed:#?}");
    }
}

#[test]
fn refusal_of_the_server_names_the_field() {
    let tollgate = Options::serving(POLICY).start();
    let printed = admin(&tollgate, "limit d user=alice 5/day --burst 5 --algorithm fixed_window");
    assert!(
        printed.failed(1).contains("limits[0].burst needs algorithm TOKEN_BUCKET"),
        "{printed:?}"
    );
    let warned = admin(&tollgate, "block d user=10.0.0.0/8");
    assert_eq!(warned.code, Some(0));
    assert!(warned.err.contains("warning: entries[0].value: it is compared as text"), "{warned:?}");
}
