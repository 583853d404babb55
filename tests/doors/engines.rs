//! The doors on the other engines of HTTP/2: peers that get in, and those that may ask.

use crate::support::engines;

#[test]
fn callers_get_in_on_every_other_engine() {
    engines::run_again("doors");
}
