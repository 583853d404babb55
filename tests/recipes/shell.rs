//! Runs scripts with bash. Only addresses are replaced, by those of the processes that the test started.

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::page::Example;
use crate::support::tools::{has_grpcurl, path};
use crate::support::wait::until;

/// The directory of the scripts, and what is replaced in them.
pub struct Shell {
    directory: PathBuf,
    /// Where `tollgate admin` finds the server, which the page leaves to its default.
    admin: Option<String>,
    /// (as written, as it is here)
    replacements: Vec<(String, String)>,
}

impl Shell {
    pub fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), admin: None, replacements: Vec::new() }
    }

    pub fn administer(&mut self, admin: SocketAddr) {
        self.admin = Some(format!("http://{admin}"));
    }

    pub fn replace(&mut self, written: &str, here: &str) {
        self.replacements.push((written.to_owned(), here.to_owned()));
    }

    /// The script prints what the page says.
    pub async fn check(&self, example: &Example<'_>) {
        let Example { place, script, output, eventually } = example;
        if script.contains("grpcurl") && !has_grpcurl(place) {
            return;
        }
        let shown = trimmed(output);
        if *eventually {
            let what = format!("{place} prints {shown}");
            until(&what, async || (self.run(place, script) == shown).then_some(())).await;
            return;
        }
        let printed = self.run(place, script);
        assert!(printed == shown, "{place}: the output is\n{printed}\nand not\n{shown}");
    }

    fn run(&self, place: &str, script: &str) -> String {
        let replace =
            |script: String, (written, here): &(String, String)| script.replace(written, here);
        let script = self.replacements.iter().fold(script.to_owned(), replace);
        let mut bash = Command::new("bash");
        for (name, _) in env::vars().filter(|(name, _)| name.starts_with("TOLLGATE")) {
            bash.env_remove(name);
        }
        if let Some(admin) = &self.admin {
            bash.env("TOLLGATE_ADMIN_ADDRESS", admin);
        }
        bash.args(["-euo", "pipefail", "-c", &format!("exec 2>&1\n{script}")]);
        bash.env("PATH", path()).current_dir(&self.directory);
        let output = bash.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{place}: {}\n{text}", output.status);
        trimmed(&text)
    }
}

/// The lines without the blanks at their ends.
fn trimmed(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
