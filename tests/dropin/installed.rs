//! Environments of installations, each with its own ports, as user 65534 on a read-only root with a
//! network of its own, in which Redis and the policies are where the manifests have them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// What all sandboxes do: start Redis and the program, wait until it is healthy, ask twice.
const SCRIPT: &str = r#"
redis-server --port 6379 --bind 127.0.0.1 --save '' --dir /tmp >/dev/null &
until redis-cli -p 6379 ping >/dev/null 2>&1; do sleep 0.05; done
export USE_STATSD=false
"$@" 2>/tmp/log &
for _ in $(seq 400); do curl -sf localhost:8080/healthcheck >/dev/null && break; sleep 0.05; done
echo "healthcheck $(curl -s localhost:8080/healthcheck)"
for _ in 1 2; do
  curl -s -o /dev/null -w 'json %{http_code}\n' localhost:8080/json -d "$QUESTION"
done
echo "debug $(curl -s -o /dev/null -w '%{http_code}' localhost:6070/rlconfig)"
redis-cli -p 6379 --scan | grep -c '^tollgate:.*d' | sed 's/^/counters /'
sed 's/^/log /' /tmp/log
kill %1 %2
"#;

/// An installation.
struct Installed<'a> {
    environment: &'a [(&'a str, &'a str)],
    /// Where its ConfigMap is mounted, and the name of the file.
    directory: &'a str,
    file: &'a str,
}

const QUESTION: &str =
    r#"{"domain": "d", "descriptors": [{"entries": [{"key": "PATH", "value": "/p"}]}]}"#;

const POLICY: &str = "domain: d\ndescriptors:\n  - key: PATH\n    value: /p\n    rate_limit:\n      \
                      unit: hour\n      requests_per_unit: 1\n";

impl Installed<'_> {
    /// Runs it and returns what was said. `None` without bubblewrap.
    fn run(&self) -> Option<String> {
        let installed = Command::new("bwrap").arg("--version").output().is_ok();
        if !installed {
            assert!(std::env::var_os("CI").is_none(), "bwrap is needed: run deploy/tools.sh");
            eprintln!("SKIPPED: bwrap is not installed; deploy/tools.sh installs it");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let hosts = dir.path().join("hosts");
        fs::write(&hosts, "127.0.0.1 localhost redis\n").unwrap();
        let policies = dir.path().join("policies");
        fs::create_dir(&policies).unwrap();
        fs::write(policies.join(self.file), POLICY).unwrap();
        open_to_all(dir.path());
        let output = self.sandbox(dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Some(said + &String::from_utf8_lossy(&output.stderr))
    }

    fn sandbox(&self, dir: &Path) -> Command {
        let mut bwrap = Command::new("bwrap");
        bwrap.args(["--unshare-all", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL"]);
        bwrap.args(["--die-with-parent", "--clearenv", "--proc", "/proc", "--dev", "/dev"]);
        for path in ["/usr", "/lib", "/lib64", "/bin", "/etc/ssl"] {
            bwrap.args(["--ro-bind-try", path, path]);
        }
        bwrap.args(["--tmpfs", "/tmp", "--ro-bind"]).arg(dir.join("hosts")).arg("/etc/hosts");
        bwrap.args(["--ro-bind", env!("CARGO_BIN_EXE_tollgate"), "/image/ratelimit"]);
        bwrap.arg("--ro-bind").arg(dir.join("policies")).arg(self.directory);
        bwrap.args(["--remount-ro", "/", "--setenv", "PATH", "/usr/bin:/bin"]);
        bwrap.args(["--setenv", "QUESTION", QUESTION]);
        for (name, value) in self.environment {
            bwrap.args(["--setenv", name, value]);
        }
        bwrap.args(["--chdir", "/", "--", "/bin/bash", "-c", SCRIPT, "sh", "/image/ratelimit"]);
        bwrap
    }

    fn assert_works(&self) {
        let Some(said) = self.run() else { return };
        let lines: Vec<&str> = said.lines().collect();
        for line in ["healthcheck OK", "json 200", "json 429", "debug 200", "counters 1"] {
            assert!(lines.contains(&line), "{line} in:\n{said}");
        }
        let bad = |line: &&str| line.contains("WARN") || line.contains("ERROR");
        let bad: Vec<&str> = lines.iter().copied().filter(bad).collect();
        assert!(bad.is_empty(), "{}", bad.join("\n"));
    }
}

/// Lets the user of the sandbox read it.
fn open_to_all(path: &Path) {
    let mode = if path.is_dir() { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            open_to_all(&entry.unwrap().path());
        }
    }
}

#[test]
fn istio() {
    let environment = &[
        ("LOG_LEVEL", "debug"),
        ("REDIS_SOCKET_TYPE", "tcp"),
        ("REDIS_URL", "redis:6379"),
        ("USE_STATSD", "false"),
        ("RUNTIME_ROOT", "/data"),
        ("RUNTIME_SUBDIRECTORY", "ratelimit"),
        ("RUNTIME_WATCH_ROOT", "false"),
        ("RUNTIME_IGNOREDOTFILES", "true"),
        ("HOST", "::"),
        ("GRPC_HOST", "::"),
        ("REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("REDIS_SERVICE_HOST", "10.0.0.1"),
    ];
    Installed { environment, directory: "/data/ratelimit/config", file: "config.yaml" }
        .assert_works();
}

#[test]
fn contour() {
    let environment = &[
        ("USE_STATSD", "false"),
        ("LOG_LEVEL", "debug"),
        ("REDIS_SOCKET_TYPE", "tcp"),
        ("REDIS_URL", "localhost:6379"),
        ("RUNTIME_ROOT", "/data"),
        ("RUNTIME_SUBDIRECTORY", "ratelimit"),
        ("RUNTIME_WATCH_ROOT", "false"),
        ("RUNTIME_IGNOREDOTFILES", "true"),
    ];
    let file = "ratelimit-config.yaml";
    Installed { environment, directory: "/data/ratelimit/config", file }.assert_works();
}

#[test]
fn kgateway() {
    let environment = &[
        ("LOG_LEVEL", "debug"),
        ("REDIS_SOCKET_TYPE", "tcp"),
        ("REDIS_URL", "redis:6379"),
        ("USE_STATSD", "false"),
        ("RUNTIME_ROOT", "/data"),
        ("RUNTIME_SUBDIRECTORY", "ratelimit"),
        ("RUNTIME_IGNOREDOTFILES", "true"),
    ];
    Installed { environment, directory: "/data/ratelimit/config", file: "config.yaml" }
        .assert_works();
}
