//! Bounds, edges and hostile calls on the other engines of HTTP/2.

use crate::support::engines;

#[test]
fn callers_are_served_on_every_other_engine() {
    engines::run_again("service");
}
