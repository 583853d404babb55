//! `tollgate admin plan` against a real tollgate, and plans in the other commands.

use crate::admin_cli::{admin, import, without_etags};
use crate::support::tollgate::Options;

const POLICY: &str =
    "domain: d\ndescriptors:\n  - {key: user, rate_limit: {unit: hour, requests_per_unit: 3}}\n";

#[tokio::test]
async fn plan_is_made_given_changed_and_deleted() {
    let tollgate = Options::serving(POLICY).start();
    let run = |line: &str| admin(&tollgate, line);
    let made = run("plan set d gold 500/hour 9/second --label tier=1");
    assert_eq!(made.ok(), "d plan gold: 500/hour and 9/second, 0 clients\n");
    assert_eq!(run("plan give d gold user=alice").ok(), "d user=alice: plan gold\n");
    let unknown = run("plan give d bronze user=alice");
    assert!(unknown.failed(1).contains(r#"plan there is no plan "bronze""#), "{unknown:?}");
    let changed = run("plan set d gold 700/hour --burst 5");
    let was = "(was 500/hour and 9/second)";
    assert_eq!(changed.ok(), format!("d plan gold: 700/hour burst 5, 1 client {was}\n"));
    assert_eq!(run("plan list --json").json()["plan"]["labels"]["tier"], "1", "labels stay");
    let explained = run("explain d user=alice");
    for part in ["decided   by the client user=alice, plan gold\n", "limit     700/hour burst 5"] {
        assert!(explained.ok().contains(part), "{part}: {explained:#?}");
    }
    assert_eq!(run("explain d user=alice --json").json()["descriptors"][0]["plan"], "gold");

    // Own limits come and go beside the plan, and so does a block.
    run("limit d user=alice 2/day").ok();
    assert_eq!(run("list d").ok(), "d user=alice: 2/day and plan gold\n1 client\n");
    let none = run("limit d user=alice none");
    assert_eq!(none.ok(), "d user=alice: plan gold (was 2/day and plan gold)\n");
    let ends = run("block d user=alice --for 1h");
    assert!(ends.failed(1).contains("the plan gold, which would end"), "{ends:?}");
    run("block d user=alice").ok();
    let unblocked = run("unblock d user=alice");
    assert_eq!(unblocked.ok(), "d user=alice: plan gold (was blocked and plan gold)\n");

    let refused = run("plan delete d gold");
    assert!(refused.failed(1).contains("has 1 client"), "{refused:?}");
    let deleted = run("plan delete d gold --force");
    assert_eq!(deleted.ok(), "d plan gold: deleted; 1 client without a plan\n");
    let explained = run("explain d user=alice");
    let text = "by the rule\nplan      gold does not exist\n";
    assert!(explained.ok().contains(text), "{explained:#?}");
    assert_eq!(run("plan list").ok(), "0 plans\n");
    // A plan that is gone is not in the way of a block.
    let blocked = run("block d user=alice");
    let was = "(was plan gold)";
    assert_eq!(blocked.ok(), format!("d user=alice: blocked and plan gold {was}\n"));
    run("plan delete d gold").failed(1);
}

#[tokio::test]
async fn plan_is_given_to_those_that_filters_choose() {
    let tollgate = Options::serving(POLICY).start();
    let run = |line: &str| admin(&tollgate, line);
    run("plan set d gold 9/hour").ok();
    run("plan set d silver 5/hour").ok();
    for (name, label) in [("a", "eu"), ("b", "eu"), ("c", "us")] {
        run(&format!("limit d user={name} 8/hour --label region={label}")).ok();
        run(&format!("plan give d silver user={name}")).ok();
    }
    let blind = run("plan give d gold");
    assert!(blind.failed(2).contains("--label, --from or --all"), "{blind:?}");
    let dry = run("plan give d gold --label region=eu --dry-run");
    assert_eq!(dry.ok(), "d plan gold: 2 clients changed\ndry run: nothing was written\n");
    let given = run("plan give d gold --label region=eu --from silver");
    assert_eq!(given.ok(), "d plan gold: 2 clients changed\n");
    let trial = run("plan give d gold --from silver --for 30d --then silver");
    assert_eq!(trial.ok(), "d plan gold: 1 client changed\n");
    let list = run("list d");
    let last = list.ok().lines().nth(2).unwrap();
    assert!(last.starts_with("d user=c: 8/hour and plan gold until 2"), "{last}");
    assert!(last.ends_with(" then silver"), "{last}");
    assert_eq!(run("plan give d gold --all --json").json()["changed"], 1, "without an end");
}

#[tokio::test]
async fn plans_are_exported_and_imported_before_their_clients() {
    let (here, there) = (Options::serving(POLICY).start(), Options::serving(POLICY).start());
    admin(&here, "plan set d gold 9/hour --label tier=1").ok();
    admin(&here, "plan give d gold user=a --for 24h --then gold").ok();
    let exported = admin(&here, "export");
    let lines = exported.ok();
    let counts = "policies: 0 new, 0 changed, 0 unchanged\nplans: 1 new, 0 changed, 0 unchanged\n\
        clients: 1 new, 0 changed, 0 unchanged\n";
    let dry = import(&there, lines, &["--dry-run"]);
    assert_eq!(dry.ok(), format!("{counts}dry run: nothing was written\n"));
    assert_eq!(admin(&there, "plan list").ok(), "0 plans\n");
    assert_eq!(import(&there, lines, &[]).ok(), counts);
    assert_eq!(without_etags(admin(&there, "export").ok()), without_etags(lines));
    let again = import(&there, lines, &["--json"]).json();
    assert_eq!(
        (&again["plans"]["unchanged"], &again["clients"]["unchanged"]),
        (&1.into(), &1.into())
    );

    let bad = lines.replace(r#""name":"gold""#, r#""name":"no name""#);
    let refused = import(&there, &bad, &[]);
    assert!(refused.failed(1).contains("line 1: plan.name: is no name of a plan"), "{refused:?}");
    let orphan = lines.lines().nth(1).unwrap().replace("gold", "bronze");
    let refused = import(&there, &orphan, &[]);
    assert!(refused.failed(1).contains(r#"line 1: plan there is no plan "bronze""#), "{refused:?}");
}
