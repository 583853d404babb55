//! The role that each RPC of the admin listener takes.
//!
//! `ManageClients` reads and writes: the call takes the least, and each action checks its own.

use super::identity::Role;

/// The services that are guarded. Health and reflection are not: they disclose nothing that the
/// source does not.
const GUARDED: &str = "/tollgate.v1.";

/// Every RPC, by its path behind [`GUARDED`].
const ROLES: [(&str, Role); 19] = [
    ("ClientService/ManageClients", Role::Read),
    ("PlanService/GetPlan", Role::Read),
    ("PlanService/ListPlans", Role::Read),
    ("PlanService/UpsertPlan", Role::Write),
    ("PlanService/DeletePlan", Role::Write),
    ("PolicyService/GetPolicy", Role::Read),
    ("PolicyService/ListPolicies", Role::Read),
    ("PolicyService/ListPolicyVersions", Role::Read),
    ("PolicyService/ListModes", Role::Read),
    ("PolicyService/ListScales", Role::Read),
    ("PolicyService/Explain", Role::Read),
    ("PolicyService/GetTop", Role::Read),
    ("PolicyService/WatchEvents", Role::Read),
    ("PolicyService/ApplyPolicy", Role::Admin),
    ("PolicyService/RollbackPolicy", Role::Admin),
    ("PolicyService/DeletePolicy", Role::Admin),
    ("PolicyService/SetMode", Role::Admin),
    ("PolicyService/SetScale", Role::Admin),
    ("PolicyService/SetLogLevel", Role::Admin),
];

/// The least role for the RPC at `path`; `None`: it is not guarded. An RPC that the table does not
/// know takes the highest.
pub(super) fn needed(path: &str) -> Option<Role> {
    let rpc = path.strip_prefix(GUARDED)?;
    let known = ROLES.iter().find(|(name, _)| *name == rpc);
    Some(known.map_or(Role::Admin, |(_, role)| *role))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// A new RPC without a row fails here.
    #[test]
    fn table_has_every_rpc_of_the_protos_and_no_other() {
        let set = FileDescriptorSet::decode(crate::edge::pb::DESCRIPTORS).unwrap();
        let own = set.file.iter().filter(|file| file.package() == "tollgate.v1");
        // That of holds is on the gRPC listener, for those who ask for decisions.
        let services = own.flat_map(|file| &file.service);
        let services = services.filter(|service| service.name() != "HoldService");
        let rpcs: BTreeSet<String> = services
            .flat_map(|service| {
                service.method.iter().map(|rpc| format!("{}/{}", service.name(), rpc.name()))
            })
            .collect();
        let table: BTreeSet<String> = ROLES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(table, rpcs);
        assert_eq!(needed("/tollgate.v1.NewService/NewCall"), Some(Role::Admin));
        assert_eq!(needed("/grpc.health.v1.Health/Check"), None);
    }
}
