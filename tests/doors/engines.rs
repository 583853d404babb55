//! Who gets in and who may ask, on the other engines of HTTP/2.

use crate::support::engines;

#[test]
fn callers_get_in_on_every_other_engine() {
    engines::run_again("doors");
}
