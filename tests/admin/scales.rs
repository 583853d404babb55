//! Scales: a part of the limits until its time is over, by the clock of the registry.

use tollgate::control::sweep::end_scales;
use tollgate::edge::admin::pb::{ListScalesRequest, SetScaleRequest};

use crate::replica::{Replica, World};

const OTHER: &[(&str, &str)] = &[("api_key", "other")];

async fn listed(replica: &Replica) -> usize {
    let all = ListScalesRequest::default();
    replica.policies.clone().list_scales(all).await.unwrap().into_inner().scales.len()
}

#[tokio::test]
async fn scale_holds_on_each_replica_until_its_time_is_over_and_is_swept() {
    let world = World::new();
    let (here, there) = (world.replica().await, world.replica().await);
    assert_eq!(here.admitted(OTHER, 10).await, 3);
    world.advance(60);
    let scale = SetScaleRequest {
        domain: "edge".to_owned(),
        rule: "api_key".to_owned(),
        percent: 67.0,
        expires_at: Some(world.time_in(600)),
        ..SetScaleRequest::default()
    };
    here.policies.clone().set_scale(scale.clone()).await.unwrap();
    there.follow().await;
    assert_eq!(there.admitted(OTHER, 10).await, 2, "67 % of three, rounded down");
    world.advance(540);
    assert_eq!(here.admitted(OTHER, 10).await, 2);
    assert_eq!((end_scales(&here.control).await.unwrap(), listed(&here).await), (0, 1));

    world.advance(60);
    assert_eq!((here.admitted(OTHER, 10).await, there.admitted(OTHER, 10).await), (3, 0));
    assert_eq!(listed(&there).await, 0, "what has ended is not listed");
    assert_eq!(end_scales(&here.control).await.unwrap(), 1);
    there.follow().await;
    assert_eq!(end_scales(&there.control).await.unwrap(), 0);
}
