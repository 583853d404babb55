//! What a client costs in memory. Alone in its binary, for it looks at the memory of its own process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(missing_docs, reason = "nothing is public in a test")]

use tollgate::limits::Client;
use tollgate::limits::directory::Directory;

const COUNT: usize = 200_000;
/// Of memory that is resident, for each client: what is promised is 400.
const MOST_BYTES: f64 = 300.0;

#[test]
fn client_with_one_limit_takes_less_than_300_bytes() {
    let directory = Directory::default();
    let before = resident_bytes();
    for i in 0..COUNT {
        // As a follower of the registry meets it.
        let record = format!(
            r#"{{"domain":"api.example.com","entries":[["client_id","acme-{i:07}"]],
            "limits":[{{"rate":{{"requests_per_unit":{i},"unit":"minute","unit_multiplier":1}}}}],
            "updated_at":1700000000000000}}"#
        );
        directory.put(Client::from_record(record.as_bytes(), i as u64).unwrap());
    }
    let each = (resident_bytes() - before) / COUNT as f64;
    assert_eq!(directory.len(), COUNT);
    assert!(each < MOST_BYTES, "{each:.0} bytes each");
}

fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}
