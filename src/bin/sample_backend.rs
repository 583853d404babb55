//! The demo upstream.

fn main() {}
