//! The targets of `tests/fuzz`, where they run as tests too.

#[path = "../../tests/fuzz/targets/mod.rs"]
pub mod targets;
