//! The choice among the answers of sentinels. No I/O.

use std::collections::BTreeSet;

use crate::redis::address::Address;

/// The answer of one sentinel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// It names a primary, by a configuration of this epoch.
    Primary { address: Address, epoch: u64 },
    /// It does not know the name of the primary, but these.
    Unknown { known: Vec<String> },
    /// It has not answered, for this reason.
    Failed(String),
}

impl Answer {
    pub(super) const fn is_primary(&self) -> bool {
        matches!(self, Self::Primary { .. })
    }
}

/// The outcome of a question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Choice {
    /// This is the primary.
    Primary { address: Address, epoch: u64 },
    /// Sentinels name a primary of an older configuration than that in force.
    Outdated,
    /// No sentinel knows the name of the primary. They know these.
    Unknown { known: BTreeSet<String> },
    /// No sentinel has answered, for these reasons.
    Failed { reasons: Vec<String> },
}

/// Chooses among the answers of `nodes` sentinels. `seen`: the epoch of the configuration in force.
///
/// The newest configuration counts. An older one than that in force comes from a sentinel that was
/// cut off, unless most of the sentinels give it: an operator has set them up anew.
pub(super) fn choose(seen: Option<u64>, nodes: usize, answers: Vec<Answer>) -> Choice {
    let (mut best, mut named) = (None, 0);
    let (mut known, mut unknown, mut reasons) = (BTreeSet::new(), false, Vec::new());
    for answer in answers {
        match answer {
            Answer::Primary { address, epoch } => {
                named += 1;
                if best.as_ref().is_none_or(|(_, newest)| epoch > *newest) {
                    best = Some((address, epoch));
                }
            }
            Answer::Unknown { known: names } => {
                unknown = true;
                known.extend(names);
            }
            Answer::Failed(reason) => reasons.push(reason),
        }
    }
    match best {
        Some((address, epoch)) if seen.is_none_or(|seen| epoch >= seen) || named * 2 > nodes => {
            Choice::Primary { address, epoch }
        }
        Some(_) => Choice::Outdated,
        None if unknown => Choice::Unknown { known },
        None => Choice::Failed { reasons },
    }
}

impl Choice {
    /// The reason why there is no primary.
    pub(super) fn reason(&self, master: &str) -> String {
        match self {
            Self::Failed { reasons } => format!("no sentinel answers: {}", reasons.join("; ")),
            Self::Unknown { known } => unknown(master, known),
            Self::Primary { .. } | Self::Outdated => "the primary is being replaced".to_owned(),
        }
    }

    /// Fails with a reason if no sentinel knows the name.
    pub(super) fn check_name(&self, master: &str) -> Result<(), String> {
        match self {
            Self::Unknown { known } => Err(unknown(master, known)),
            _ => Ok(()),
        }
    }
}

fn unknown(master: &str, known: &BTreeSet<String>) -> String {
    let names = known.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let known = if names.is_empty() { "no name at all" } else { &names };
    format!("the sentinels do not know {master:?}; they know {known}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(port: u16, epoch: u64) -> Answer {
        Answer::Primary { address: Address::Tcp("h".to_owned(), port), epoch }
    }

    fn port(choice: &Choice) -> Option<u16> {
        match choice {
            Choice::Primary { address: Address::Tcp(_, port), .. } => Some(*port),
            _ => None,
        }
    }

    #[test]
    fn newest_configuration_counts_in_any_order() {
        for answers in [[primary(1, 4), primary(2, 5)], [primary(2, 5), primary(1, 4)]] {
            assert_eq!(port(&choose(None, 3, answers.to_vec())), Some(2));
            assert_eq!(port(&choose(Some(5), 3, answers.to_vec())), Some(2));
        }
    }

    #[test]
    fn older_configuration_counts_only_if_most_sentinels_have_it() {
        assert_eq!(choose(Some(5), 3, vec![primary(1, 4)]), Choice::Outdated);
        let failed = Answer::Failed("refused".to_owned());
        assert_eq!(choose(Some(5), 3, vec![primary(1, 4), failed]), Choice::Outdated);
        let most = vec![primary(1, 0), primary(1, 0)];
        assert_eq!(port(&choose(Some(5), 3, most)), Some(1));
        assert_eq!(port(&choose(Some(5), 3, vec![primary(1, 5)])), Some(1));
    }

    #[test]
    fn unknown_name_is_a_fault_only_if_no_sentinel_names_a_primary() {
        let unknown = || Answer::Unknown { known: vec!["b".to_owned(), "a".to_owned()] };
        assert_eq!(port(&choose(None, 3, vec![unknown(), primary(1, 1)])), Some(1));
        let choice = choose(None, 3, vec![unknown(), Answer::Failed("x".to_owned())]);
        let fault = choice.check_name("m").unwrap_err();
        assert_eq!(fault, "the sentinels do not know \"m\"; they know a, b");
        let choice = choose(None, 3, vec![Answer::Failed("x".to_owned())]);
        assert!(choice.check_name("m").is_ok());
        assert_eq!(choice.reason("m"), "no sentinel answers: x");
    }
}
