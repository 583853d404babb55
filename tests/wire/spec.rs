//! h2spec, the conformance suite of HTTP/2 and HPACK, strict cases included.
//!
//! It asks by GET and waits for some answer. A call of the health service without a message has
//! one, a gRPC status, and only after the end of the request: an answer to an unknown path comes at
//! once, before the frames that the case is about.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::POLICIES;
use crate::support::engines::ENGINES;
use crate::support::tollgate::{Options, Tollgate};
use crate::support::tools::has_of_go;

const TARGET: &str = "/grpc.health.v1.Health/Check";

/// Seconds that a case may take.
const PATIENCE: &str = "2";

/// The cases of the release that deploy/tools.sh installs.
const CASES: usize = 146;

/// A case that does not pass.
struct Known {
    /// Its section and title.
    case: (&'static str, &'static str),
    /// The engines that it fails on; empty: all of them.
    engines: &'static [&'static str],
    /// False: it passes when other packets arrive first.
    always: bool,
    reason: &'static str,
}

/// An answer of tollgate to a GET has a status, and no DATA to wait for.
const NO_BODY: &str = "the case waits for DATA, and the answer is HEADERS with END_STREAM";

const KNOWN: &[Known] = &[
    Known {
        case: ("generic/2", "Sends a WINDOW_UPDATE frame on half-closed (remote) stream"),
        engines: &[],
        always: true,
        reason: NO_BODY,
    },
    Known {
        case: ("generic/2", "Sends a PRIORITY frame on half-closed (remote) stream"),
        engines: &[],
        always: true,
        reason: NO_BODY,
    },
    Known {
        case: ("http2/3.5", "Sends invalid connection preface"),
        engines: &[],
        always: false,
        reason: "the connection is closed with bytes unread, so with RST of TCP instead of FIN",
    },
    Known {
        case: (
            "http2/5.1.2",
            "Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded",
        ),
        engines: &[],
        always: false,
        reason: "each call is complete and answered at once, so that few are concurrent; the bound \
                 is that of `bounds` in tests/wire",
    },
];

/// Cases that h2spec itself leaves out where an answer has no DATA. `windows` in tests/wire has the
/// same with a call that has some.
const SKIPPED: [(&str, &str); 4] = [
    ("http2/6.5.3", "Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE"),
    (
        "http2/6.9.1",
        "Sends SETTINGS frame to set the initial window size to 1 and sends HEADERS frame",
    ),
    ("http2/6.9.2", "Changes SETTINGS_INITIAL_WINDOW_SIZE after sending HEADERS frame"),
    ("http2/6.9.2", "Sends a SETTINGS frame for window size to be negative"),
];

/// Section and title of each case.
type Cases = BTreeSet<(String, String)>;

#[derive(Default)]
struct Report {
    all: usize,
    failed: Cases,
    skipped: Cases,
}

fn named(case: (&str, &str)) -> (String, String) {
    (case.0.to_owned(), case.1.to_owned())
}

fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_once(&format!("{name}=\""))?.1.split('"').next()
}

impl Report {
    fn parse(xml: &str) -> Self {
        let (mut report, mut case) = (Self::default(), None);
        for line in xml.lines().map(str::trim) {
            if line.starts_with("<testcase ") {
                report.all += 1;
                let title = attribute(line, "classname").expect("a title").replace("&#34;", "\"");
                case = Some((attribute(line, "package").expect("a section").to_owned(), title));
            } else if line.starts_with("<error>") || line.starts_with("<failure>") {
                report.failed.extend(case.take());
            } else if line.starts_with("<skipped>") {
                report.skipped.extend(case.take());
            }
        }
        report
    }
}

fn run(tollgate: &Tollgate, file: &Path) -> Report {
    let mut h2spec = Command::new(".tools/bin/h2spec");
    h2spec.args(["--strict", "-h", "127.0.0.1", "-P", TARGET, "-o", PATIENCE]);
    h2spec.args(["-p", &tollgate.at.grpc.port().to_string(), "-j"]).arg(file);
    let output = h2spec.output().unwrap();
    let xml = fs::read_to_string(file).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    Report::parse(&xml)
}

#[test]
fn h2spec_finds_what_is_known() {
    if !has_of_go("h2spec", "h2spec") {
        return;
    }
    for engine in ENGINES {
        let tollgate = Options::serving(POLICIES).engine(engine).start();
        let report = run(&tollgate, &tollgate.dir().join("h2spec.xml"));
        assert_eq!(report.all, CASES, "cases of h2spec");
        let known = KNOWN.iter().filter(|k| k.engines.is_empty() || k.engines.contains(engine));
        let (mut expected, mut possible) = (Cases::new(), Cases::new());
        for known in known {
            assert!(!known.reason.is_empty());
            let set = if known.always { &mut expected } else { &mut possible };
            set.insert(named(known.case));
        }
        let failed: Cases = report.failed.difference(&possible).cloned().collect();
        assert_eq!(failed, expected, "{engine}: cases that fail");
        assert_eq!(report.skipped, SKIPPED.map(named).into(), "{engine}: cases left out");
        assert!(tollgate.errors().is_empty(), "{:?}", tollgate.errors());
    }
}
