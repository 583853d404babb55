//! Envoy asks a tollgate with each other engine of HTTP/2.

use crate::stack;
use crate::support::engines;

#[tokio::test]
async fn envoy_is_answered_on_every_other_engine() {
    let _alone = stack::alone().await;
    tokio::task::spawn_blocking(|| engines::run_again("e2e")).await.unwrap();
}
