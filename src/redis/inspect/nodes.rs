//! The findings at several nodes of a cluster as one list.

use std::collections::BTreeMap;

use super::finding::Finding;

/// A check, and the nodes with each of its faults.
type Check = (&'static str, BTreeMap<String, Vec<String>>);

/// Joins the findings at nodes, which are named by their address. Each fault has the nodes that
/// have it. The role is left out: the map of slots follows it.
pub(super) fn join(of_nodes: Vec<(String, Vec<Finding>)>) -> Vec<Finding> {
    let mut checks: Vec<Check> = Vec::new();
    for (node, found) in of_nodes {
        for Finding { check, fault } in found.into_iter().filter(|found| found.check != "role") {
            if !checks.iter().any(|(known, _)| *known == check) {
                checks.push((check, BTreeMap::new()));
            }
            let known = checks.iter_mut().find(|(known, _)| *known == check);
            if let (Some((_, faults)), Some(fault)) = (known, fault) {
                faults.entry(fault).or_default().push(node.clone());
            }
        }
    }
    checks.into_iter().map(|(check, faults)| Finding { check, fault: text(faults) }).collect()
}

fn text(faults: BTreeMap<String, Vec<String>>) -> Option<String> {
    let at = |(fault, nodes): (String, Vec<String>)| format!("{fault} (at {})", nodes.join(", "));
    let texts: Vec<String> = faults.into_iter().map(at).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_the_nodes_that_have_them() {
        let found = |eviction: Option<&str>| {
            let role = Finding { check: "role", fault: Some("a replica".to_owned()) };
            let fault = eviction.map(str::to_owned);
            vec![
                Finding { check: "version", fault: None },
                role,
                Finding { check: "eviction", fault },
            ]
        };
        let of_nodes = [("a:1", Some("evicts")), ("b:1", None), ("c:1", Some("evicts"))];
        let joined = join(of_nodes.map(|(node, fault)| (node.to_owned(), found(fault))).to_vec());
        let fault = Some("evicts (at a:1, c:1)".to_owned());
        assert_eq!(
            joined,
            [Finding { check: "version", fault: None }, Finding { check: "eviction", fault }]
        );
    }
}
