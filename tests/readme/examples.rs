//! Runs the sh blocks of the README and the docs with bash. Only ports are replaced, by those of the processes started
//! here.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::markdown::{Block, Page, pages, root};
use crate::support::certs::{Authority, Pair};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate};
use crate::support::tools::{has_grpcurl, path};

/// The first lines of blocks that are not run, with the reason.
const NOT_RUN: [(&str, &str); 6] = [
    ("make run ", "serves until it is stopped, and `make test` is what runs this"),
    ("promtool ", "the same commands are a test of tests/e2e/observed.rs"),
    ("helm install ", "needs a cluster; tests/deploy renders and checks the chart"),
    ("make bench ", "takes minutes and a machine of its own"),
    (
        "make pgo ",
        "builds twice, which takes minutes; tests/deploy makes the calls that it watches",
    ),
    (
        "make demo ",
        "serves until it is stopped, and containers need an engine; tests/deploy compares both",
    ),
];

#[test]
fn every_shell_block_is_run_or_listed_with_a_reason() {
    let blocks: Vec<_> = pages().iter().flat_map(Page::blocks).collect();
    let shell: Vec<_> = blocks.iter().filter(|block| block.language == "sh").collect();
    for block in &shell {
        let listed = NOT_RUN.iter().any(|(first, _)| block.text.starts_with(first));
        let run = matches!(
            block.mark.as_deref(),
            Some("example" | "redis" | "files" | "succeeds" | "tls")
        );
        assert!(run != listed, "{}: not run and not listed, or both", block.place);
    }
    for (first, reason) in NOT_RUN {
        let found = shell.iter().any(|block| block.text.starts_with(first));
        assert!(found && !reason.is_empty(), "no block begins with {first:?}");
    }
}

/// The blocks in bash are those of the recipes, which have a test of their own.
#[test]
fn every_language_has_a_test() {
    for page in pages() {
        for block in page.blocks() {
            let known = match &*block.language {
                "json" | "sh" | "text" | "yaml" => true,
                "bash" => page.path == "docs/recipes.md",
                _ => false,
            };
            assert!(known, "{}: no test runs {:?}", block.place, block.language);
        }
    }
}

#[test]
fn examples_of_the_built_in_policy_print_what_their_page_says() {
    for page in with_mark("example") {
        let tollgate = Options::default().start();
        Shell::at(&tollgate, None).run_all(&page, "example");
    }
}

/// The stack of the examples with Redis.
fn with_redis(redis: &RedisServer) -> Options {
    let policies = root().join("deploy/policies/edge.yaml");
    let tollgate = Options::default().policies(policies).redis(redis.url());
    // These examples are about keys, not about the latency of a busy machine.
    let tollgate = tollgate.set("store.deadline=5s");
    let script = fs::read_to_string(root().join("deploy/demo.sh")).unwrap();
    let token = script.lines().find_map(|line| line.strip_prefix("ADMIN_TOKEN=")).unwrap();
    tollgate.env("TOLLGATE__ADMIN__TOKEN", token)
}

#[test]
fn examples_with_redis_print_what_their_page_says() {
    for page in with_mark("redis") {
        let Some(redis) = RedisServer::start() else { return };
        let tollgate = with_redis(&redis).start();
        Shell::at(&tollgate, Some(&redis)).run_all(&page, "redis");
    }
}

/// The same calls with certificates in place of `-plaintext` and `http`.
#[test]
fn examples_print_the_same_over_tls_with_client_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("docs");
    let ca = authority.file(dir.path().join("ca.crt"));
    let server = authority.issue(dir.path(), "server", &["localhost", "127.0.0.1"]);
    let client = authority.issue(dir.path(), "client", &["spiffe://mesh/ns/docs/sa/reader"]);
    let closed = |options: Options| {
        ["grpc", "admin", "http"].iter().fold(options, |options, listener| {
            let set = |options: Options, setting: &str, path: &Path| {
                options.set(format!("{listener}.tls.{setting}={}", path.display()))
            };
            let options = set(options, "cert_file", &server.cert);
            let options = set(options, "key_file", &server.key);
            set(options, "client_ca_file", &ca)
        })
    };
    for mark in ["example", "redis"] {
        for page in with_mark(mark) {
            let Some(redis) = RedisServer::start() else { return };
            let options = if mark == "redis" { with_redis(&redis) } else { Options::default() };
            let tollgate = closed(options).start();
            let shell = Shell::at(&tollgate, Some(&redis)).over_tls(&ca, &client);
            shell.run_all(&page, mark);
        }
    }
}

#[test]
fn examples_with_certificates_of_their_page_print_what_it_says() {
    for page in with_mark("tls") {
        let (dir, mut shell) = (tempfile::tempdir().unwrap(), None);
        for (i, block) in page.blocks().iter().enumerate() {
            match block.mark.as_deref() {
                Some("tls") => {
                    if block.text.contains("grpcurl") && !has_grpcurl(&block.place) {
                        continue;
                    }
                    let beside = Shell {
                        directory: dir.path().to_owned(),
                        ports: Vec::new(),
                        admin: None,
                        env: Vec::new(),
                    };
                    let (shell, _) = shell.get_or_insert_with(|| (beside, None));
                    compare(&page.blocks()[i + 1], &shell.run(&block.place, &block.text));
                }
                // The first settings are those of the tollgate that later commands call.
                Some("settings")
                    if shell.as_ref().is_some_and(|(_, running)| running.is_none()) =>
                {
                    let at = dir.path().join("certs/");
                    let text = block.text.replace("certs/", at.to_str().unwrap());
                    let tollgate = Options::default().config(&text).start();
                    let mut here = Shell::at(&tollgate, None);
                    here.directory = dir.path().to_owned();
                    shell = Some((here, Some(tollgate)));
                }
                _ => {}
            }
        }
    }
}

#[test]
fn examples_with_files_print_what_their_page_says() {
    for page in with_mark("files") {
        let dir = tempfile::tempdir().unwrap();
        for block in page.blocks() {
            if let Some(name) = block.mark.as_deref().and_then(|mark| mark.strip_prefix("file ")) {
                fs::write(dir.path().join(name), block.text).unwrap();
            }
        }
        let (directory, ports) = (dir.path().to_owned(), Vec::new());
        Shell { directory, ports, admin: None, env: Vec::new() }.run_all(&page, "files");
    }
}

#[test]
fn examples_whose_output_differs_succeed() {
    for page in with_mark("succeeds") {
        let tollgate = Options::default().start();
        let shell = Shell::at(&tollgate, None);
        for block in page.marked("succeeds") {
            let printed = shell.run(&block.place, &block.text);
            assert!(!printed.is_empty(), "{} prints nothing", block.place);
        }
    }
}

/// The pages that have blocks of this mark.
fn with_mark(mark: &str) -> Vec<Page> {
    let pages: Vec<_> = pages().into_iter().filter(|page| !page.marked(mark).is_empty()).collect();
    assert!(!pages.is_empty(), "no block is marked {mark:?}");
    pages
}

/// The directory in which commands run, and the ports in place of those that the pages name.
pub struct Shell {
    directory: PathBuf,
    /// (as written, as it is here)
    ports: Vec<(String, String)>,
    /// Where `tollgate admin` finds the server, which the pages leave to its default.
    admin: Option<String>,
    /// Further variables.
    env: Vec<(&'static str, PathBuf)>,
}

impl Shell {
    pub fn at(tollgate: &Tollgate, redis: Option<&RedisServer>) -> Self {
        let at = &tollgate.at;
        let listeners = [(8080, at.http), (8081, at.grpc), (8082, at.admin)];
        let hosts = ["localhost", "127.0.0.1"].into_iter();
        let mut ports: Vec<_> = hosts
            .flat_map(|host| listeners.map(|(port, here)| (host, port, here.port())))
            .map(|(host, port, here)| (format!("{host}:{port}"), format!("{host}:{here}")))
            .collect();
        ports.extend(redis.map(|redis| ("-p 6390".to_owned(), format!("-p {}", redis.port()))));
        let admin = Some(format!("http://{}", at.admin));
        Self { directory: tollgate.dir().to_owned(), ports, admin, env: Vec::new() }
    }

    /// The same calls to listeners with TLS that ask for certificates.
    fn over_tls(mut self, ca: &Path, client: &Pair) -> Self {
        let Pair { cert, key } = client;
        let (ca_shown, cert_shown, key_shown) = (ca.display(), cert.display(), key.display());
        let calls = format!("grpcurl -cacert {ca_shown} -cert {cert_shown} -key {key_shown}");
        let fetch = format!("curl --cacert {ca_shown} --cert {cert_shown} --key {key_shown} -s");
        // Before the ports, which are part of what is replaced.
        self.ports.insert(0, ("grpcurl -plaintext".to_owned(), calls));
        self.ports.insert(1, ("curl -s".to_owned(), fetch));
        self.ports
            .insert(2, (" localhost:8080/".to_owned(), " https://localhost:8080/".to_owned()));
        self.ports.insert(3, (" http://".to_owned(), " https://".to_owned()));
        self.admin = self.admin.map(|address| address.replace("http://", "https://"));
        self.env = vec![
            ("TOLLGATE_CLIENT_CA_FILE", ca.to_owned()),
            ("TOLLGATE_CLIENT_CERT_FILE", cert.clone()),
            ("TOLLGATE_CLIENT_KEY_FILE", key.clone()),
        ];
        self
    }

    /// Runs all blocks of this mark, in their order. The exports of a block reach those after it.
    fn run_all(&self, page: &Page, mark: &str) {
        let blocks = page.blocks();
        let mut exported = String::new();
        for (i, block) in blocks.iter().enumerate() {
            if block.language != "sh" || block.mark.as_deref() != Some(mark) {
                continue;
            }
            if block.text.starts_with("export ") {
                exported.push_str(&block.text);
                continue;
            }
            if block.text.contains("grpcurl") && !has_grpcurl(&block.place) {
                continue;
            }
            let shown = blocks.get(i + 1).filter(|next| is_output(next));
            let shown = shown.unwrap_or_else(|| panic!("{}: no output", block.place));
            let printed = self.run(&block.place, &format!("{exported}{}", block.text));
            compare(shown, &printed);
        }
    }

    /// The output of the script. `what` says where it is written.
    pub fn run(&self, what: &str, script: &str) -> String {
        let replace =
            |script: String, (written, here): &(String, String)| script.replace(written, here);
        let script = self.ports.iter().fold(script.to_owned(), replace);
        // As the support starts tollgate: without the settings of the shell that runs the tests.
        let mut bash = Command::new("bash");
        for (name, _) in env::vars().filter(|(name, _)| name.starts_with("TOLLGATE")) {
            bash.env_remove(name);
        }
        if let Some(admin) = &self.admin {
            bash.env("TOLLGATE_ADMIN_ADDRESS", admin);
        }
        bash.envs(self.env.iter().map(|(name, path)| (name, path)));
        bash.args(["-euo", "pipefail", "-c", &format!("exec 2>&1\n{script}")]);
        bash.env("PATH", path()).current_dir(&self.directory);
        let output = bash.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{what}: {}\n{text}", output.status);
        text
    }
}

fn is_output(block: &Block) -> bool {
    block.mark.is_none() && matches!(&*block.language, "text" | "json")
}

/// JSON as values, text by lines without the blanks at their ends.
fn compare(shown: &Block, printed: &str) {
    let place = &shown.place;
    if shown.language == "json" {
        let value = |text: &str| {
            serde_json::from_str::<Value>(text)
                .unwrap_or_else(|error| panic!("{place}: {error} in\n{text}"))
        };
        assert_eq!(value(printed), value(&shown.text), "{place}");
    } else {
        let lines = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        let (printed, shown) = (lines(printed), lines(&shown.text));
        assert!(printed == shown, "{place}: the output is\n{printed}\nand not\n{shown}");
    }
}
