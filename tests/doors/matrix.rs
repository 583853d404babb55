//! Every RPC of the admin listener for every identity, by the descriptors of the protos.

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tollgate::edge::admin::pb::client_service_client::ClientServiceClient;
use tollgate::edge::admin::pb::manage_clients_request::{
    Action, Delete, Get, List, ResetUsage, SetPlan, Upsert,
};
use tollgate::edge::admin::pb::{ClientName, ManageClientsRequest};
use tollgate::edge::pb::DESCRIPTORS;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use crate::house::{House, connect};
use crate::support::certs::Pair;
use crate::support::tollgate::Tollgate;

const CONFIG: &str = "
admin:
  tokens: {board: t-read, support: t-write, ops: t-admin, old: t-old}
  token_roles: {board: read, support: write, ops: admin}
  san_roles:
    spiffe://mesh/ns/board/*: read
    spiffe://mesh/ns/support/*: write
    spiffe://mesh/ns/ops/*: admin
";

/// A caller, and the roles that it has.
struct Identity {
    name: &'static str,
    token: Option<&'static str>,
    certificate: Option<&'static str>,
    /// 0: unknown; 1: read; 2: write; 3: admin.
    rank: u8,
}

const fn by_token(name: &'static str, token: &'static str, rank: u8) -> Identity {
    Identity { name, token: Some(token), certificate: None, rank }
}

const fn by_certificate(name: &'static str, uri: &'static str, rank: u8) -> Identity {
    Identity { name, token: None, certificate: Some(uri), rank }
}

const IDENTITIES: [Identity; 9] = [
    Identity { name: "nobody", token: None, certificate: None, rank: 0 },
    by_token("wrong token", "t-none", 0),
    by_token("board", "t-read", 1),
    by_token("support", "t-write", 2),
    by_token("ops", "t-admin", 3),
    by_token("token without a role", "t-old", 3),
    by_certificate("certificate of the board", "spiffe://mesh/ns/board/sa/a", 1),
    by_certificate("certificate of support", "spiffe://mesh/ns/support/sa/a", 2),
    by_certificate("certificate of ops", "spiffe://mesh/ns/ops/sa/a", 3),
];

/// The rank that an RPC takes, by its name: those that begin like this change policies and modes.
/// Plans are limits of clients, which support changes.
fn rank_of(rpc: &str) -> u8 {
    if ["UpsertPlan", "DeletePlan"].contains(&rpc) {
        return 2;
    }
    let changes = ["Apply", "Rollback", "Delete", "Set"];
    if changes.iter().any(|verb| rpc.starts_with(verb)) { 3 } else { 1 }
}

/// The paths of all RPCs, with their names.
fn rpcs() -> Vec<(String, String)> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let own = set.file.iter().filter(|file| file.package() == "tollgate.v1");
    // That of holds is on the gRPC listener.
    let services = own.flat_map(|file| file.service.iter());
    let services = services.filter(|service| service.name() != "HoldService");
    services
        .flat_map(|service| {
            let path = |rpc: &str| format!("/tollgate.v1.{}/{rpc}", service.name());
            service.method.iter().map(move |rpc| (path(rpc.name()), rpc.name().to_owned()))
        })
        .collect()
}

fn request<T>(identity: &Identity, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = identity.token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// Whether the guard let the call pass; what the service says of the empty message is its own.
fn admitted(code: Code, rank: u8) -> bool {
    match code {
        Code::Unauthenticated => assert_eq!(rank, 0, "a known caller"),
        Code::PermissionDenied => assert_ne!(rank, 0, "a stranger"),
        _ => return true,
    }
    false
}

async fn rpc(channel: &Channel, identity: &Identity, path: &str) -> bool {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<(), ()>::default();
    let path = path.parse().unwrap();
    // Without waiting for the end of a stream, which may have none.
    let code = match grpc.server_streaming(request(identity, ()), path, codec).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    };
    admitted(code, identity.rank)
}

/// The actions of `ManageClients`, with the rank that each takes.
fn actions() -> [(Action, u8); 6] {
    let client = Some(ClientName { domain: "d".to_owned(), ..ClientName::default() });
    [
        (Action::Get(Get { client }), 1),
        (Action::List(List::default()), 1),
        (Action::Upsert(Upsert::default()), 2),
        (Action::Delete(Delete::default()), 2),
        (Action::ResetUsage(ResetUsage::default()), 2),
        (Action::SetPlan(SetPlan::default()), 2),
    ]
}

async fn connected(house: &House, tollgate: &Tollgate, identity: &Identity) -> Channel {
    let unnamed = identity.certificate.unwrap_or("spiffe://mesh/ns/none/sa/a");
    let pair: Pair = house.pair(&[unnamed]);
    connect(tollgate.at.admin, house.caller(Some(&pair))).await.unwrap()
}

#[tokio::test]
async fn every_rpc_takes_its_role_of_every_identity() {
    let house = House::new();
    let tollgate = house.mutual(&["admin"]).config(CONFIG).start();
    let all = rpcs();
    assert!(all.len() >= 15, "{all:?}");
    for identity in &IDENTITIES {
        // Strangers are slowed down after a while; of one call each is enough to see.
        let channel = connected(&house, &tollgate, identity).await;
        let some = if identity.rank == 0 { &all[..1] } else { &all[..] };
        for (path, name) in some {
            let passed = rpc(&channel, identity, path).await;
            assert_eq!(passed, identity.rank >= rank_of(name), "{} {name}", identity.name);
        }
        let some = if identity.rank == 0 { 1 } else { 6 };
        for (action, rank) in actions().into_iter().take(some) {
            let mut client = ClientServiceClient::new(channel.clone());
            let message =
                ManageClientsRequest { action: Some(action.clone()), validate_only: true };
            let code = match client.manage_clients(request(identity, message)).await {
                Ok(_) => Code::Ok,
                Err(status) => status.code(),
            };
            let passed = admitted(code, identity.rank);
            assert_eq!(passed, identity.rank >= rank, "{} {action:?}", identity.name);
        }
    }
    let unknown = connected(&house, &tollgate, &IDENTITIES[3]).await;
    assert!(!rpc(&unknown, &IDENTITIES[3], "/tollgate.v1.NewService/NewCall").await);
    let refused = tollgate.wait_for_log("has the role read, this takes");
    assert!(refused.contains("board token"), "{refused}");
}

#[tokio::test]
async fn audit_names_the_certificate_of_who_changes_something() {
    let house = House::new();
    let tollgate = house.mutual(&["admin"]).config(CONFIG).start();
    let ops = &IDENTITIES[8];
    let channel = connected(&house, &tollgate, ops).await;
    assert!(rpc(&channel, ops, "/tollgate.v1.PolicyService/SetMode").await);
    let line = tollgate.wait_for_log("set_mode");
    assert!(line.contains("spiffe://mesh/ns/ops/sa/a certificate"), "{line}");
}
