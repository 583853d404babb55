//! The rows on the other engines of HTTP/2.

use crate::field::alone;
use crate::support::engines;

#[test]
fn rows_hold_on_every_other_engine() {
    let _alone = alone();
    engines::run_again("attacks");
}
