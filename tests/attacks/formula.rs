//! The formula of docs/operations.md, "Memory that peers can take": its numbers are read from there,
//! so that the page and the rows agree.

use std::collections::BTreeMap;

use tollgate::config::Key;

/// The numbers of the table, in bytes, and the defaults of the bounds.
pub struct Formula {
    parts: BTreeMap<String, u64>,
    max_header_bytes: u64,
    max_pending_bytes: u64,
}

impl Formula {
    pub fn documented() -> Self {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
        let page = std::fs::read_to_string(page).unwrap();
        let (_, table) = page.split_once("<!-- memory -->").expect("the table of memory");
        let rows = table.trim_start().lines().take_while(|line| line.starts_with('|')).skip(2);
        Self {
            parts: rows.map(|row| cells(row).unwrap_or_else(|| panic!("{row}"))).collect(),
            max_header_bytes: default("listeners.max_header_bytes"),
            max_pending_bytes: default("listeners.max_pending_bytes"),
        }
    }

    fn get(&self, name: &str) -> u64 {
        *self.parts.get(name).unwrap_or_else(|| panic!("no row {name}"))
    }

    /// The allocator, the log and the metrics: what a process takes beside all else.
    pub fn slack(&self) -> u64 {
        self.get("slack")
    }

    /// Connections in clear without calls.
    pub fn idle(&self, count: u64) -> u64 {
        count * self.get("idle")
    }

    /// What TLS adds to them.
    pub fn tls(&self, count: u64) -> u64 {
        count * self.get("tls")
    }

    /// Handshakes in flight.
    pub fn handshakes(&self, count: u64) -> u64 {
        count * self.get("handshake")
    }

    /// What a connection of HTTP/2 can take beside its calls.
    pub fn filled(&self, count: u64) -> u64 {
        count * (self.get("tables") + 8 * self.max_header_bytes + self.get("window"))
    }

    /// Concurrent calls.
    pub fn calls(&self, count: u64) -> u64 {
        count * self.get("call")
    }

    /// Connections of HTTP/1 with a request.
    pub fn http1(&self, count: u64) -> u64 {
        count * self.get("http1")
    }

    /// The most that so many connections may take by the defaults of one listener over TLS, of whose
    /// calls and bytes they may have one in `share`.
    fn worst(&self, connections: u64, share: u64) -> u64 {
        let calls = default("listeners.max_calls") / share + 16 * connections;
        let connected = self.idle(connections) + self.tls(connections) + self.filled(connections);
        connected + self.calls(calls) + self.max_pending_bytes / share + self.slack()
    }

    /// What one address may take of `listeners.max_pending_bytes`, where that has the default.
    pub fn pending(&self) -> u64 {
        self.max_pending_bytes / 4
    }
}

fn default(setting: &str) -> u64 {
    Key::find(setting).unwrap().default.parse().unwrap()
}

/// Name and bytes of a row: its first cell, and the number with its unit in the second.
fn cells(row: &str) -> Option<(String, u64)> {
    let mut cells = row.split('|').map(str::trim).skip(1);
    let (name, size) = (cells.next()?.trim_matches('`').to_owned(), cells.next()?);
    let (number, unit) = size.split_once(' ')?;
    let unit = match unit {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    Some((name, number.parse::<u64>().ok()? * unit))
}

#[test]
fn page_has_the_numbers_of_the_formula() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let (page, formula) = (std::fs::read_to_string(page).unwrap(), Formula::documented());
    let all = default("listeners.max_connections");
    for (who, bytes) in [
        ("5000 idle connections in clear", formula.idle(5_000)),
        ("one address with 1000 connections, all that it may take", formula.worst(1_000, 4)),
        ("ten addresses with 10000 connections, all that they may take", formula.worst(all, 1)),
    ] {
        let row = format!("| {who} | {:.1} GiB |", bytes as f64 / f64::from(1 << 30));
        assert!(page.contains(&row), "{row}");
    }
}
