//! The services that tollgate can stand in for.

use std::str::FromStr;

use crate::settings::{Word as _, words};

/// The service that tollgate stands in for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Compat {
    /// None: tollgate as itself.
    #[default]
    None,
    /// envoyproxy/ratelimit.
    Ratelimit,
}

words!(Compat { "none" => None, "ratelimit" => Ratelimit });

impl FromStr for Compat {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let unknown = || format!("expected one of {}", Self::names().join(", "));
        Self::from_word(word).ok_or_else(unknown)
    }
}
