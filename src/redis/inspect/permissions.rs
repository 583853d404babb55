//! The commands, keys and channels that tollgate uses, and which of them the ACL of its user lacks.
//!
//! Redis checks the ACL before the arguments, so a probe is a command that changes nothing: on a
//! key that does not exist, or with an argument that the command refuses. SADD refuses no argument:
//! what it makes is deleted by the next probe.

use std::collections::BTreeSet;

use redis::Cmd;

use super::finding::Finding;

/// The part of a probe that stands for the key.
const KEY: &str = "KEY";

/// The part of a probe that stands for the channel.
const CHANNEL: &str = "CHANNEL";

/// Every command with arguments that change nothing. docs/redis.md has them as a line of an ACL.
const PROBES: &[&str] = &[
    "EVAL return-1 0",
    "EVALSHA 0000000000000000000000000000000000000000 0",
    "SCRIPT LOAD return",
    "TIME",
    "GET KEY",
    "MGET KEY",
    "SETRANGE KEY 0 ",
    "PSETEX KEY 0 x",
    "SADD KEY m",
    "DEL KEY",
    "PTTL KEY",
    "SCARD KEY",
    "HGET KEY f",
    "HMGET KEY f",
    "HGETALL KEY",
    "HSET KEY f v odd",
    "HDEL KEY f",
    "HSCAN KEY 0",
    "XADD KEY 0-0 f v",
    "XINFO STREAM KEY",
    "XRANGE KEY - + COUNT 1",
    "XREVRANGE KEY + - COUNT 1",
    "XTRIM KEY MAXLEN 1",
    "ZADD KEY XX 1 m",
    "ZCARD KEY",
    "ZCOUNT KEY 0 0",
    "ZSCORE KEY m",
    "ZRANGEBYSCORE KEY 0 0",
    "ZRANGE KEY 0 0",
    "ZREM KEY m",
    "ZREMRANGEBYSCORE KEY 0 0",
    "PEXPIRE KEY 1",
    "PUBLISH CHANNEL x",
];

/// The further ones that a cluster needs. ASKING holds for the next command only.
const CLUSTER_PROBES: &[&str] = &["ASKING", "CLUSTER SLOTS"];

/// One command with arguments that change nothing.
pub(super) struct Probe {
    words: Vec<String>,
}

/// The probes on keys and channels of `prefix`.
pub(super) fn probes(prefix: &str, in_cluster: bool) -> Vec<Probe> {
    let word = |word: &str| match word {
        KEY | CHANNEL => channel(prefix),
        word => word.to_owned(),
    };
    let probe = |text: &&str| Probe { words: text.split(' ').map(word).collect() };
    let further = if in_cluster { CLUSTER_PROBES } else { &[] };
    PROBES.iter().chain(further).map(probe).collect()
}

/// A channel, and a key, that holds nothing.
pub(super) fn channel(prefix: &str) -> String {
    format!("{prefix}{{registry}}:inspected")
}

impl Probe {
    pub(super) fn command(&self) -> Cmd {
        let mut command = Cmd::new();
        command.arg(&self.words);
        command
    }

    /// The command as an ACL names it.
    fn rule(&self) -> String {
        let mut words = self.words.iter().map(|word| word.to_ascii_lowercase());
        let name = words.next().unwrap_or_default();
        match (name.as_str(), words.next()) {
            ("script" | "xinfo" | "cluster", Some(second)) => format!("+{name}|{second}"),
            _ => format!("+{name}"),
        }
    }
}

/// The rules that the ACL lacks, as they would be written.
#[derive(Debug, Default)]
pub(super) struct Lacks {
    commands: BTreeSet<String>,
    keys: bool,
    channels: bool,
    /// The reason why scripts are refused by something that does not know them.
    scripts: Option<String>,
}

impl Lacks {
    /// Notes the error of a probe.
    pub(super) fn note(&mut self, probe: &Probe, error: &str) {
        self.note_error(probe.rule(), error);
    }

    /// Notes the error of a subscription.
    pub(super) fn note_subscribe(&mut self, error: &str) {
        self.note_error("+subscribe".to_owned(), error);
    }

    fn note_error(&mut self, rule: String, error: &str) {
        if error.contains("NOPERM") || error.contains("no permissions") {
            match error {
                error if error.contains("keys") || error.contains("a key") => self.keys = true,
                error if error.contains("channel") => self.channels = true,
                _ => drop(self.commands.insert(rule)),
            }
        } else if error.to_ascii_lowercase().contains("unknown command")
            && rule.starts_with("+eval")
        {
            self.scripts = Some(error.to_owned());
        }
    }

    /// The findings for keys of `prefix`.
    pub(super) fn findings(self, prefix: &str) -> Vec<Finding> {
        let keys = self.keys.then(|| format!("~{prefix}*"));
        let channels = self.channels.then(|| format!("&{prefix}*"));
        let rules = self.commands.into_iter().chain(keys).chain(channels).collect::<Vec<_>>();
        let lacking = (!rules.is_empty()).then(|| {
            let rules = rules.join(" ");
            format!("the user of tollgate in Redis lacks permissions; ACL SETUSER USER {rules}")
        });
        let scripts = self.scripts.map(|error| {
            format!(
                "tollgate needs scripts, and they are refused ({error}); connect to Redis itself, \
                 not to a proxy"
            )
        });
        vec![
            Finding { check: "permissions", fault: lacking },
            Finding { check: "scripts", fault: scripts },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_refusal_is_the_rule_that_is_missing() {
        let mut lacks = Lacks::default();
        let probes = probes("p:", true);
        let probe = |rule: &str| probes.iter().find(|probe| probe.rule() == rule).unwrap();
        let refused = "NOPERM: this user has no permissions to";
        lacks.note(probe("+xadd"), &format!("{refused} run the 'xadd' command"));
        lacks.note(probe("+script|load"), &format!("{refused} run the 'script|load' command"));
        lacks.note(probe("+mget"), &format!("{refused} access one of the keys used as arguments"));
        let of_channel = format!("{refused} access one of the channels used as arguments");
        lacks.note(probe("+publish"), &of_channel);
        let refused = format!("{refused} run the 'cluster|slots' command");
        lacks.note(probe("+cluster|slots"), &refused);
        lacks.note(probe("+psetex"), "ERR invalid expire time in 'psetex' command");
        let found = lacks.findings("p:");
        let fault = found[0].fault.as_deref().unwrap();
        assert!(fault.ends_with("USER +cluster|slots +script|load +xadd ~p:* &p:*"), "{fault}");
        assert_eq!(found[1].fault, None);

        let mut proxy = Lacks::default();
        proxy.note(probe("+evalsha"), "ERR unknown command 'EVALSHA'");
        assert!(proxy.findings("p:")[1].fault.as_deref().unwrap().contains("proxy"));
    }

    /// A command of a script that the ACL lacks fails the script.
    #[test]
    fn every_command_of_the_scripts_is_probed() {
        let mut folders = vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
        let mut found = BTreeSet::new();
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "lua") {
                    let text = std::fs::read_to_string(path).unwrap();
                    let calls = text.split("call('").skip(1);
                    found.extend(calls.map(|call| call.split('\'').next().unwrap().to_owned()));
                }
            }
        }
        assert!(found.len() > 20, "{found:?}");
        let probed = |name: &str| PROBES.iter().any(|probe| probe.split(' ').next() == Some(name));
        found.retain(|name| !probed(name));
        assert_eq!(found, BTreeSet::new());
    }

    #[test]
    fn documented_line_has_every_command() {
        let page = include_str!("../../../docs/redis.md");
        for probe in probes("tollgate:", true) {
            let rule = probe.rule();
            assert!(page.split_whitespace().any(|word| word == rule), "{rule} is not in the docs");
        }
    }
}
