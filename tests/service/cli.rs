//! The command line as people and supervisors meet it: exit codes, what is on which stream, and what is never shown.

use std::fs;
use std::io::{Seek as _, Write as _};
use std::net::TcpListener;
use std::process::{Output, Stdio};

use crate::support::grpc::ask;
use crate::support::redis::free_port;
use crate::support::tollgate::{Options, command, request};

/// Runs it to its end; what must not serve is started on no port that another could need.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    run_with(args, &[])
}

/// As [`run`], with this as standard input.
fn run_reading(args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input.as_bytes()).unwrap();
    file.rewind().unwrap();
    let mut command = command();
    let Output { status, stdout, stderr } =
        command.args(args).stdin(file).output().expect("tollgate runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

fn run_with(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = command();
    command.args(args).envs(env.iter().copied()).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().expect("tollgate runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

/// Serves on free ports, with a data directory of its own, until it ends by itself.
fn serve(args: &[&str]) -> (Option<i32>, String, String) {
    let data = tempfile::tempdir().unwrap();
    let data = format!("data_dir={}", data.path().display());
    let anywhere =
        ["grpc.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0", "http.listen=127.0.0.1:0", &data];
    run(&[&anywhere.map(|setting| ["--set", setting]).concat()[..], args].concat())
}

fn path(dir: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

const BAD: &str = "domain: d\ndescriptors:\n  - {kee: a}\n  - {key: b, rate_limit: {unit: dya, requests_per_unit: 1}}\n";
const GOOD: &str =
    "{domain: d, descriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 1}}]}";

#[test]
fn check_tells_every_fault_and_says_by_its_exit_code_whether_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (path(&dir, "good.yaml", GOOD), path(&dir, "bad.yaml", BAD));
    let (code, out, err) = run(&["check", &good]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "1 file, 1 domain, 1 rule: ok\n", ""));
    let (code, out, _) = run(&["check", &bad]);
    assert_eq!(code, Some(1));
    for part in [
        format!("{bad}:3:5: key is missing"),
        format!("{bad}:3:6: unknown key \"kee\""),
        format!("{bad}:4:33: unit must be one of"),
        "hint: did you mean \"key\"?".to_owned(),
        "hint: did you mean \"day\"?".to_owned(),
        "\n3 faults\n".to_owned(),
    ] {
        assert!(out.contains(&part), "no {part:?} in\n{out}");
    }
    // All paths are one set, here with the same domain twice.
    let again = path(&dir, "again.yaml", GOOD);
    let (code, out, _) = run(&["check", &good, &again]);
    assert_eq!(code, Some(1));
    assert!(out.contains("duplicate domain"), "{out}");
    assert_eq!(run(&["check", "/nonexistent.yaml"]).0, Some(1));
    assert_eq!(run(&["check"]).0, Some(2), "the command line is wrong");
    let (code, out, _) =
        run(&["check", "deploy/policies/example.yaml", "deploy/policies/edge.yaml"]);
    assert_eq!(code, Some(0), "{out}");
}

#[test]
fn check_reads_standard_input_and_may_deny_warnings() {
    let (code, out, err) = run_reading(&["check", "-"], GOOD);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "1 file, 1 domain, 1 rule: ok\n", ""));
    let odd = GOOD.replace("key: k", "key: k, value: 10.0.0.0/8");
    let (code, out, _) = run_reading(&["check", "-"], &odd);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.starts_with("stdin:1:"), "{out}");
    assert!(out.ends_with("1 file, 1 domain, 1 rule: ok, 1 warning\n"), "{out}");
    assert_eq!(run_reading(&["check", "-", "--deny-warnings"], &odd).0, Some(1));
    assert_eq!(run_reading(&["check", "-", "--deny-warnings"], GOOD).0, Some(0));
}

#[test]
fn check_as_json_has_every_fault_and_warning() {
    let dir = tempfile::tempdir().unwrap();
    let bad = path(&dir, "bad.yaml", BAD);
    let (code, out, _) = run(&["check", &bad, "--format", "json"]);
    assert_eq!((code, out.lines().count()), (Some(1), 1), "{out}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["faults"].as_array().unwrap().len(), 3);
    let fault = &report["faults"][1];
    assert_eq!(
        (&fault["file"], &fault["line"], &fault["column"]),
        (&bad.into(), &3.into(), &6.into())
    );
    assert_eq!(fault["hint"], "did you mean \"key\"?");
    let odd = GOOD.replace("requests_per_unit: 1", "replaces: [{name: x}]");
    let (code, out, _) = run_reading(&["check", "-", "--format", "json"], &odd);
    assert_eq!(code, Some(0), "{out}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["ok"], &report["rules"]), (&true.into(), &1.into()));
    assert_eq!(report["warnings"].as_array().unwrap().len(), 2, "{out}");
}

#[test]
fn check_shows_twenty_faults_unless_all_are_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("domain: d\ndescriptors:\n{}", "  - {key: a, kee: b}\n".repeat(30));
    let bad = path(&dir, "bad.yaml", &text);
    let faults = |out: &str| out.lines().filter(|line| line.starts_with(&bad)).count();
    let (code, out, _) = run(&["check", &bad]);
    assert_eq!((code, faults(&out)), (Some(1), 20), "{out}");
    assert!(out.contains("\n39 more faults; --all shows them\n59 faults\n"), "{out}");
    let (code, out, _) = run(&["check", &bad, "--all"]);
    assert_eq!((code, faults(&out)), (Some(1), 59), "{out}");
    assert!(out.ends_with("\n59 faults\n"), "{out}");
}

#[test]
fn expectations_fail_the_check_with_what_was_expected_and_what_is() {
    let dir = tempfile::tempdir().unwrap();
    let good = path(&dir, "good.yaml", GOOD);
    let met = path(
        &dir,
        "met.yaml",
        "- {domain: d, descriptor: [k=v], expect: 1/day, rule: k}\n\
         - {domain: d, descriptor: [{key: other, value: v}], expect: none}\n",
    );
    let (code, out, err) = run(&["check", &good, "--expect", &met]);
    let summary = "1 file, 1 domain, 1 rule, 2 expectations: ok\n";
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), summary, ""));
    let unmet = path(&dir, "unmet.yaml", "- domain: d\n  descriptor: [k=v]\n  expect: 2/day\n");
    let (code, out, _) = run(&["check", &good, "--expect", &unmet]);
    let lines = format!(
        "{unmet}:1:3: d k=v\n  expected 2/day\n  found    1/day, rule k at {good}:1:27\n\
         1 file, 1 domain, 1 rule, 1 of 1 expectation failed\n"
    );
    assert_eq!((code, out), (Some(1), lines));
    let (code, out, _) = run(&["check", &good, "--expect", &unmet, "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["ok"]), (Some(1), &false.into()));
    assert_eq!(report["expectations"]["failures"][0]["expected"], "2/day");
    for unreadable in ["- {domain: d}", "", "- {domain: d, descriptor: [k], expect: none}"] {
        let file = path(&dir, "unreadable.yaml", unreadable);
        let (code, out, err) = run(&["check", &good, "--expect", &file]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{unreadable}");
        assert!(err.contains("unreadable.yaml"), "{err}");
    }
}

#[test]
fn explain_shows_the_rule_of_a_descriptor_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let policies = path(
        &dir,
        "p.yaml",
        "domain: d\ndescriptors:\n  - key: user\n    sensitive: true\n    shadow_mode: true\n    \
         rate_limit: {unit: hour, requests_per_unit: 500, algorithm: token_bucket, burst: 50}\n  \
         - {key: a, descriptors: [{key: b, rate_limit: {unlimited: true}}]}\n",
    );
    let (code, out, err) = run(&["explain", &policies, "d", "user=s3cret"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(
        out,
        format!(
            "d 'user=<sensitive>'\nrule      user at {policies}:3:5\nmode      shadow: reports, never denies\n\
             limit     500/hour, token_bucket, burst 50\n\
             counter   tollgate:1:{{d|user#<sensitive>}}:token_bucket:3600s\n"
        )
    );
    for (entries, reason) in [
        (&["x=y"][..], "no rule begins with x=y"),
        (&["a=1"], "the policy has limits only for longer descriptors"),
        (&["a=1", "c=2"], "no rule has c=2 after a=1; limits are not inherited"),
        (&["a=1", "b=2"], "limit     unlimited"),
    ] {
        let (code, out, _) = run(&[&["explain", &policies, "d"], entries].concat());
        assert_eq!(code, Some(0));
        assert!(out.contains(reason), "{out}");
    }
    let (code, out, _) = run(&["explain", &policies, "d", "user=s3cret", "--json"]);
    let explained: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &explained["limits"][0]["limit"]), (Some(0), &"500/hour".into()));
    assert!(!out.contains("s3cret"), "{out}");
    let (code, _, err) = run(&["explain", &policies, "typo", "user=x"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("\"typo\"") && err.contains("the policies are of d"), "{err}");
    let (code, out, _) = run_reading(&["explain", "-", "d", "k=v"], GOOD);
    assert_eq!(code, Some(0));
    assert!(out.contains("1/day, sliding_window, 10 slots"), "{out}");
    let bad = path(&dir, "bad.yaml", BAD);
    let (code, _, err) = run(&["explain", &bad, "d", "k=v"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("the policies have faults\n") && err.contains("bad.yaml:3:5"), "{err}");
}

#[test]
fn printed_settings_can_be_loaded_again_and_show_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let config = path(
        &dir,
        "tollgate.yaml",
        "sensitive_key: hunter1\nmodes: {edge: shadow, \"a: b\": off}\ngrpc: {cores: 3}\n\
         redis: {url: \"redis://ann:hunter2@127.0.0.1:6379/1\", key_prefix: \"x: #y\"}\n",
    );
    let args = ["print-config", "--config", &config, "--set", "store.deadline=7ms"];
    let (code, out, err) = run_with(&args, &[("TOLLGATE__LOG__LEVEL", "warn")]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(!out.contains("hunter"), "{out}");
    for part in ["cores: 3 # ", "deadline: 7ms # --set", "TOLLGATE__LOG__LEVEL", "shadow"] {
        assert!(out.contains(part), "no {part:?} in\n{out}");
    }
    // The mark of a secret that is not shown is no secret.
    let again = path(&dir, "again.yaml", &out);
    let (code, _, err) = run(&["print-config", "--config", &again]);
    assert_eq!(code, Some(64), "{err}");
    for part in ["2 faults", "again.yaml:", "sensitive_key: ", "redis.url: ", "write the secret"] {
        assert!(err.contains(part), "no {part:?} in\n{err}");
    }
    // With the secrets given, the values without the comments, which name the origin, are the same the second time.
    let secrets = [
        ("TOLLGATE__SENSITIVE_KEY", "hunter1"),
        ("TOLLGATE__REDIS__URL", "redis://ann:hunter2@127.0.0.1:6379/1"),
    ];
    let values = |text: &str| -> Vec<String> {
        let value = |line: &str| line.split(" # ").next().unwrap_or_default().to_owned();
        text.lines().filter(|line| !line.trim_start().starts_with('#')).map(value).collect()
    };
    let (code, second, err) = run_with(&["print-config", "--config", &again], &secrets);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert_eq!(values(&second), values(&out));
}

#[test]
fn variables_of_envoyproxy_ratelimit_are_named_with_how_to_have_them_read() {
    let environment = [("REDIS_URL", "redis:6379"), ("RUNTIME_ROOT", "/data"), ("PORT", "8080")];
    let named = [
        "variables of envoyproxy/ratelimit are set and not read: RUNTIME_ROOT, REDIS_URL;",
        "--compat ratelimit or TOLLGATE__COMPAT=ratelimit",
    ];
    let options =
        environment.iter().fold(Options::default(), |all, (name, value)| all.env(name, value));
    let tollgate = options.start();
    let warned = tollgate.wait_for_log("not read");
    assert!(warned.contains("\"level\":\"WARN\""), "{warned}");
    for part in named {
        assert!(warned.contains(part), "no {part:?} in {warned}");
    }
    assert!(!warned.contains("PORT,"), "a name that many programs use: {warned}");

    let (code, out, err) = run_with(&["print-config"], &environment);
    assert_eq!(code, Some(0), "{err}");
    for part in named {
        assert!(err.contains(part), "no {part:?} in {err}");
    }
    assert!(err.starts_with("warning: ") && out.starts_with('#'), "{err}{out}");
    let (_, _, err) = run_with(&["print-config", "--set", "compat=none"], &environment);
    assert_eq!(err, "", "who says so needs no hint");
}

#[test]
fn bad_settings_are_all_told_at_once_with_their_own_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let config = path(&dir, "tollgate.yaml", "grpc: {listn: x}\nstore: {deadline: 5}\n");
    let args = ["--config", &config, "--set", "admin.listen=0.0.0.0:8082", "--set", "mode=maybe"];
    let (code, out, err) = run_with(&args, &[("TOLLGATE__REDIS__URL", "http://:hunter2@nowhere")]);
    assert_eq!((code, out.as_str()), (Some(64), ""));
    for part in [
        "faults in the settings",
        "tollgate.yaml:1:",
        "did you mean grpc.listen?",
        "tollgate.yaml:2:",
        "add a unit: 5ms or 5s",
        "TOLLGATE__REDIS__URL: redis.url",
        "--set: mode: ",
    ] {
        assert!(err.contains(part), "no {part:?} in\n{err}");
    }
    assert!(!err.contains("hunter2"), "{err}");
    let (code, _, err) = run(&["--set", "admin.listen=0.0.0.0:8082"]);
    assert_eq!(code, Some(64));
    assert!(err.contains("admin.listen") && err.contains("loopback only"), "{err}");
    assert_eq!(run(&["--config", "/nonexistent.yaml"]).0, Some(64));
    assert_eq!(run(&["--no-such-flag"]).0, Some(2));
}

#[test]
fn busy_port_is_told_with_the_setting_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for setting in ["grpc.listen", "admin.listen", "http.listen"] {
        let set = format!("{setting}={address}");
        let (code, _, err) = serve(&["--set", &set]);
        assert_eq!(code, Some(1), "{err}");
        let told = err.lines().find(|line| line.starts_with("tollgate: ")).expect("a last word");
        assert!(told.contains(&address.to_string()) && told.contains(setting), "{told}");
    }
}

#[test]
fn bad_policies_stop_the_start_and_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let bad = path(&dir, "bad.yaml", BAD);
    let ready = dir.path().join("ready.json").display().to_string();
    let (code, _, err) = serve(&["--policies", &bad, "--ready-file", &ready]);
    assert_eq!(code, Some(1));
    for part in ["bad.yaml:3:5: ", "bad.yaml:3:6: ", "bad.yaml:4:33: ", "hint: "] {
        assert!(err.contains(part), "no {part:?} in\n{err}");
    }
    assert!(!fs::exists(&ready).unwrap(), "not ready, yet it says so");
    let (code, _, err) = serve(&["--policies", "/nonexistent"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("/nonexistent"), "{err}");
}

#[test]
fn help_and_version_need_nothing() {
    let (code, out, err) = run(&["--version"]);
    let version = format!("tollgate {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((code, out, err.as_str()), (Some(0), version, ""));
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for part in
        ["check", "print-config", "--policies", "--redis-url", "TOLLGATE__REDIS__URL", "8081"]
    {
        assert!(out.contains(part), "no {part} in\n{out}");
    }
}

#[tokio::test]
async fn ready_file_has_the_addresses_that_serve_and_no_half_written_twin() {
    let tollgate = Options::default().start();
    let at = tollgate.at;
    for address in [at.grpc, at.admin, at.http] {
        assert!(address.ip().is_loopback() && address.port() != 0, "{address}");
    }
    let answer = ask(&mut tollgate.client().await, request("d", &[&[("k", "v")]])).await;
    assert_eq!(answer.statuses.len(), 1, "ready means that it serves");
    let files: Vec<_> =
        fs::read_dir(tollgate.dir()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(files, ["ready.json"]);
    let (code, _, err) = serve(&["--ready-file", "/nonexistent/ready.json"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("cannot write the ready file /nonexistent/ready.json"), "{err}");
}

#[test]
fn log_is_json_by_line_or_text_and_tells_no_secret() {
    let url = format!("redis://ann:hunter2@127.0.0.1:{}", free_port());
    for format in ["auto", "json", "text"] {
        let options = Options::serving(GOOD).redis(&url).set("log.level=debug");
        let options = options.set(format!("log.format={format}"));
        let tollgate = options.env("TOLLGATE__SENSITIVE_KEY", "hunter3").start();
        tollgate.wait_for_log("is ready");
        tollgate.wait_for_log("Redis does not decide");
        for line in tollgate.log() {
            assert!(!line.contains("hunter"), "{line}");
            if format == "text" {
                assert!(!line.starts_with('{') && !line.contains('\u{1b}'), "{line:?}");
                continue;
            }
            let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            for field in ["timestamp", "level", "message", "target"] {
                assert!(line[field].is_string(), "no {field} in {line}");
            }
        }
    }
}
