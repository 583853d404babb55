//! Where policies come from, beside the registry.
//!
//! * [`files`]: a file or directory that is watched.

pub mod files;
