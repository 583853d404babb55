//! The tollgate server.

fn main() {}
