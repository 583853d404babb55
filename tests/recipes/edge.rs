//! The real Envoy with the shipped configuration and the changes of a recipe, in front of one tollgate and one backend.

use std::net::SocketAddr;
use std::path::Path;

use axum::Router;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::page::Recipe;
use crate::support::envoy::Envoy;

const SHIPPED: &str = include_str!("../../deploy/envoy/envoy.yaml");

/// Envoy and its backend; both end when it is dropped.
pub struct Edge {
    pub envoy: Envoy,
    backend: JoinHandle<()>,
}

impl Edge {
    pub async fn start(program: &Path, recipe: &Recipe, tollgate: SocketAddr) -> Self {
        Self::start_with(program, recipe, tollgate, |_| ()).await
    }

    /// The same with a configuration that is changed like this.
    pub async fn start_with(
        program: &Path,
        recipe: &Recipe,
        tollgate: SocketAddr,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        // As a gateway of models answers: each answer says what it cost.
        let app = Router::new().fallback(async || [("x-tokens-used", "60000")]);
        let backend = tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
        let mut configuration = configuration(recipe, tollgate, at);
        change(&mut configuration);
        let envoy = Envoy::run(program, &configuration.to_string()).await;
        envoy.until_healthy("ratelimit", 1).await;
        Self { envoy, backend }
    }

    /// tollgate answered whatever Envoy asked: no request passed because of an error.
    pub async fn assert_nothing_was_bypassed(&self) {
        let stats = self.envoy.stats().await;
        let stat = |name: &str| stats.get(&format!("cluster.backends.ratelimit.{name}")).copied();
        for failure in ["error", "failure_mode_allowed"] {
            assert_eq!(stat(failure).unwrap_or(0), 0, "{failure}\n{}", self.envoy.said());
        }
        assert!(stat("ok") > Some(0), "tollgate was not asked\n{}", self.envoy.said());
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.backend.abort();
    }
}

/// The shipped configuration with these addresses, patience for a busy machine, one trusted proxy, and the recipe's files.
fn configuration(recipe: &Recipe, tollgate: SocketAddr, backend: SocketAddr) -> Value {
    let yaml = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap();
    let mut envoy = yaml(SHIPPED);
    let any = address(SocketAddr::from(([127, 0, 0, 1], 0)));
    envoy["admin"]["address"] = any.clone();
    let resources = &mut envoy["static_resources"];
    let listener = &mut resources["listeners"][0];
    listener["address"] = any;
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager["xff_num_trusted_hops"] = json!(1);
    let filter = &mut manager["http_filters"][0]["typed_config"];
    filter["timeout"] = json!("10s");
    filter["rate_limit_service"]["grpc_service"]["retry_policy"]["retry_back_off"]["max_interval"] =
        json!("5s");
    if let Some(policies) = recipe.file("policies.yaml") {
        filter["domain"] = yaml(policies)["domain"].take();
    }
    if let Some(limits) = recipe.file("rate_limits.yaml") {
        filter["rate_limits"] = yaml(limits)["rate_limits"].take();
    }
    let filters = manager["http_filters"].as_array_mut().unwrap();
    if let Some(after) = recipe.file("http_filter_after.yaml") {
        filters.insert(1, yaml(after));
    }
    if let Some(first) = recipe.file("http_filter.yaml") {
        filters.insert(0, yaml(first));
    }
    if let Some(more) = recipe.file("connection_manager.yaml") {
        let Value::Object(more) = yaml(more) else { panic!("keys: {more}") };
        manager.as_object_mut().unwrap().extend(more);
    }
    for cluster in resources["clusters"].as_array_mut().unwrap() {
        let at = if cluster["name"] == "ratelimit" { tollgate } else { backend };
        cluster["load_assignment"]["endpoints"] =
            json!([{ "lb_endpoints": [{ "endpoint": { "address": address(at) } }] }]);
    }
    envoy
}

fn address(at: SocketAddr) -> Value {
    json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } })
}
