//! Costs that the upstream tells when its answer has ended: a filter writes them into metadata.

use serde_json::{Value, json};
use tonic::Code;

use super::configuration::{self, NAMESPACE};
use super::edge::{COST, ESTIMATE, Edge, VERSIONS};
use super::streams::{self, Call};

const READ_TRAILER: &str = r#"
function envoy_on_response(answer)
  for chunk in answer:bodyChunks() do end
  local trailers = answer:trailers()
  local tokens = trailers and trailers:get("x-tokens")
  if tokens then
    answer:streamInfo():dynamicMetadata():set("usage", "tokens", tonumber(tokens))
  end
end
"#;

/// Takes the cost from the trailer alone.
fn read_trailers(envoy: &mut Value) {
    let script = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": { "inline_string": READ_TRAILER },
    });
    let cost = "%DYNAMIC_METADATA(usage:tokens)%";
    let filters = configuration::filters(envoy);
    filters[0]["typed_config"]["rate_limits"] = configuration::rate_limits(NAMESPACE, "x-", cost);
    filters.insert(1, json!({ "name": "envoy.filters.http.lua", "typed_config": script }));
}

/// Envoy drops the trailers of HTTP/1.1, unless listener and cluster keep them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cost_in_a_trailer_is_settled() {
    let keep = json!({ "enable_trailers": true });
    let start = Edge::start_with(|envoy| {
        read_trailers(envoy);
        configuration::manager(envoy)["http_protocol_options"] = keep.clone();
        configuration::speak(envoy, &json!({ "http_protocol_options": keep }));
    });
    let Some(edge) = start.await else { return };
    for version in VERSIONS {
        // The other answer has the header only.
        for (path, used) in [("trailer", COST), ("ok", ESTIMATE)] {
            let user = edge.new_user();
            let mut client = edge.client(version).await;
            assert_eq!(client.get(path, &[("x-user", &user)]).await.0, 200);
            edge.until_settled(path, &user, used).await;
        }
    }
    edge.assert_all_is_settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cost_in_a_trailer_of_grpc_is_settled() {
    let upstream = streams::upstream().await;
    let start = Edge::start_with(|envoy| {
        read_trailers(envoy);
        streams::lead_to(envoy, upstream);
    });
    let Some(edge) = start.await else { return };
    for code in [Code::Ok, Code::Internal] {
        let (user, ends) = (edge.new_user(), (code as i32).to_string());
        let mut call = Call::open(&edge, &[("x-user", &user), ("x-ends", &ends)]).await.unwrap();
        call.talk().await;
        assert_eq!(call.end().await, code);
        edge.until_settled(&format!("{code:?}"), &user, COST).await;
    }
    // Whoever leaves before the trailer keeps the estimate. A cancelled call may end what it says
    // first, which must not bring the trailer.
    let (user, never) = (edge.new_user(), ("x-ends", streams::NEVER));
    let mut call = Call::open(&edge, &[("x-user", &user), never]).await.unwrap();
    call.talk().await;
    drop(call);
    edge.until_settled("cancelled", &user, ESTIMATE).await;
    edge.assert_all_is_settled().await;
}
