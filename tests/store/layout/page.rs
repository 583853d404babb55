//! The tables of the page.

use std::fmt::Write as _;

use tollgate::store::redis::script::layout::{
    ALGORITHMS, AmendmentAnswer, Answer, BOUNDS, BucketAnswer, CHANGES, COMMITS, ConcurrencyAnswer,
    Constant, FixedAnswer, Format, KINDS, LeaseAnswer, MARKS, OUTCOMES, ROLES, ReplyHead,
    SlidingAnswer, VERSIONS,
};

use super::{AMENDMENTS, CLAIMS, HEADS, LIMITS, STATES, SUFFIXES, fields, size};

pub fn tables() -> String {
    let mut page = String::from("## Constants\n");
    let lists = [
        ("Commit of a group", COMMITS),
        ("Roles of a part", ROLES),
        ("Algorithm", ALGORITHMS),
        ("Added to the algorithm", MARKS),
        ("Kind of a claim", KINDS),
        ("Change of an amendment", CHANGES),
        ("Outcome of a guard", OUTCOMES),
        ("Version of a state", VERSIONS),
        ("Bounds", BOUNDS),
    ];
    for (title, list) in lists {
        constants(&mut page, title, list);
    }
    formats(&mut page, "Frame: ARGV[1]", HEADS);
    formats(&mut page, "Claims", CLAIMS);
    formats(&mut page, "Amendments", AMENDMENTS);
    formats(&mut page, "Limits: ARGV[2]", LIMITS);
    page.push_str("\n## Reply\n");
    answer::<ReplyHead>(&mut page, "Begin of the reply");
    answer::<BucketAnswer>(&mut page, "Token bucket");
    answer::<LeaseAnswer>(&mut page, "Lease");
    answer::<SlidingAnswer>(&mut page, "Sliding window");
    answer::<FixedAnswer>(&mut page, "Fixed window");
    answer::<ConcurrencyAnswer>(&mut page, "Concurrency");
    answer::<AmendmentAnswer>(&mut page, "Amendment");
    formats(&mut page, "States", STATES);
    for suffix in SUFFIXES {
        format(&mut page, suffix);
    }
    page
}

fn constants(page: &mut String, title: &str, list: &[Constant]) {
    write!(page, "\n| {title} | value | meaning |\n|---|---|---|\n").unwrap();
    for Constant { name, value, meaning } in list {
        writeln!(page, "| `{name}` | {value} | {meaning} |").unwrap();
    }
}

fn formats(page: &mut String, title: &str, formats: &[Format]) {
    write!(page, "\n## {title}\n").unwrap();
    for each in formats {
        format(page, each);
    }
}

fn format(page: &mut String, format: &Format) {
    let (title, bytes) = (format.title, size(&fields(format)));
    write!(page, "\n| {title}: {bytes} bytes | type | unit | meaning |\n|---|---|---|---|\n")
        .unwrap();
    for field in fields(format) {
        let (name, kind, unit, meaning) =
            (field.name, field.kind.name(), field.unit, field.meaning);
        writeln!(page, "| `{name}` | {kind} | {unit} | {meaning} |").unwrap();
    }
}

fn answer<A: Answer>(page: &mut String, title: &str) {
    write!(page, "\n| {title} | unit | meaning |\n|---|---|---|\n").unwrap();
    for (name, unit, meaning) in A::INTEGERS {
        writeln!(page, "| `{name}` | {unit} | {meaning} |").unwrap();
    }
}
