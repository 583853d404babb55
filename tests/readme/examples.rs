//! Runs the sh blocks of the README with bash. Only ports are replaced, by those of the processes started here.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::markdown::{Block, blocks, root};
use crate::support::redis::RedisServer;
use crate::support::tollgate::{Options, Tollgate};
use crate::support::tools::{has_grpcurl, path};

/// The first lines of blocks that are not run, with the reason.
const NOT_RUN: [(&str, &str); 3] = [
    ("make run ", "serves until it is stopped, and `make test` is what runs this"),
    ("make bench ", "takes minutes and a machine of its own"),
    (
        "make demo ",
        "serves until it is stopped, and containers need an engine; tests/deploy compares both",
    ),
];

#[test]
fn every_shell_block_is_run_or_listed_with_a_reason() {
    let blocks = blocks();
    let shell: Vec<_> = blocks.iter().filter(|block| block.language == "sh").collect();
    for block in &shell {
        let listed = NOT_RUN.iter().any(|(first, _)| block.text.starts_with(first));
        let run = matches!(block.mark.as_deref(), Some("example" | "redis" | "files"));
        assert!(run != listed, "README.md:{}: not run and not listed, or both", block.line);
    }
    for (first, reason) in NOT_RUN {
        let found = shell.iter().any(|block| block.text.starts_with(first));
        assert!(found && !reason.is_empty(), "{first:?} is not in the README");
    }
}

#[test]
fn examples_of_the_built_in_policy_print_what_the_readme_says() {
    let tollgate = Options::default().start();
    Shell::at(&tollgate, None).run_all("example");
}

#[test]
fn examples_with_redis_print_what_the_readme_says() {
    let Some(redis) = RedisServer::start() else { return };
    let policies = root().join("deploy/policies/edge.yaml");
    let tollgate = Options::default().policies(policies).redis(redis.url());
    // These examples are about keys, not about how quickly a busy machine answers.
    let tollgate = tollgate.set("store.deadline=5s");
    let script = fs::read_to_string(root().join("deploy/demo.sh")).unwrap();
    let token = script.lines().find_map(|line| line.strip_prefix("ADMIN_TOKEN=")).unwrap();
    let tollgate = tollgate.env("TOLLGATE__ADMIN__TOKEN", token).start();
    Shell::at(&tollgate, Some(&redis)).run_all("redis");
}

#[test]
fn examples_with_files_print_what_the_readme_says() {
    let dir = tempfile::tempdir().unwrap();
    for block in blocks() {
        if let Some(name) = block.mark.as_deref().and_then(|mark| mark.strip_prefix("file ")) {
            fs::write(dir.path().join(name), block.text).unwrap();
        }
    }
    Shell { directory: dir.path().to_owned(), ports: Vec::new() }.run_all("files");
}

/// Where commands run, and what they find at the ports of the README.
pub struct Shell {
    directory: PathBuf,
    /// (as written, as it is here)
    ports: Vec<(String, String)>,
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
        Self { directory: tollgate.dir().to_owned(), ports }
    }

    /// Runs all blocks of this mark, in their order. What a block exports, those after it have.
    fn run_all(&self, mark: &str) {
        let blocks = blocks();
        let mut found = 0;
        let mut exported = String::new();
        for (i, block) in blocks.iter().enumerate() {
            if block.language != "sh" || block.mark.as_deref() != Some(mark) {
                continue;
            }
            found += 1;
            if block.text.starts_with("export ") {
                exported.push_str(&block.text);
                continue;
            }
            let what = format!("README.md:{}", block.line);
            if block.text.contains("grpcurl") && !has_grpcurl(&what) {
                continue;
            }
            let shown = blocks.get(i + 1).filter(|next| is_output(next));
            let shown = shown.unwrap_or_else(|| panic!("README.md:{}: no output", block.line));
            let printed = self.run(&what, &format!("{exported}{}", block.text));
            compare(block.line, shown, &printed);
        }
        assert!(found > 0, "no block is marked {mark:?}");
    }

    /// What the script prints. `what` says where it is written.
    pub fn run(&self, what: &str, script: &str) -> String {
        let replace =
            |script: String, (written, here): &(String, String)| script.replace(written, here);
        let script = self.ports.iter().fold(script.to_owned(), replace);
        // As the support starts tollgate: without settings of whoever runs the tests.
        let mut bash = Command::new("bash");
        for (name, _) in env::vars().filter(|(name, _)| name.starts_with("TOLLGATE")) {
            bash.env_remove(name);
        }
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
fn compare(line: usize, shown: &Block, printed: &str) {
    if shown.language == "json" {
        let value = |text: &str| {
            serde_json::from_str::<Value>(text)
                .unwrap_or_else(|error| panic!("README.md:{line}: {error} in\n{text}"))
        };
        assert_eq!(value(printed), value(&shown.text), "README.md:{line}");
    } else {
        let lines = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        let (printed, shown) = (lines(printed), lines(&shown.text));
        assert!(printed == shown, "README.md:{line} prints\n{printed}\nand not\n{shown}");
    }
}
