//! The one table of what needs which role. What is not in it is refused, and a test holds it against the descriptions of all
//! services.

use klp_identity::Role;

/// What a caller needs to be let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: anybody may ask, within the limits for strangers.
    Nothing,
    Role(Role),
}

const ANYBODY: Needs = Needs::Nothing;
const VIEWER: Needs = Needs::Role(Role::Viewer);
const SUBMITTER: Needs = Needs::Role(Role::Submitter);
const OPERATOR: Needs = Needs::Role(Role::Operator);
const ADMIN: Needs = Needs::Role(Role::Admin);
const WORKER: Needs = Needs::Role(Role::Worker);

/// gRPC's methods, by path; gRPC-web's are the same.
pub const GRPC: &[(&str, Needs)] = &[
    ("/klpfarm.v1.LivepatchService/Get", VIEWER),
    ("/klpfarm.v1.LivepatchService/List", VIEWER),
    ("/klpfarm.v1.LivepatchService/GetTask", VIEWER),
    ("/klpfarm.v1.LivepatchService/Attempts", VIEWER),
    ("/klpfarm.v1.LivepatchService/Changes", VIEWER),
    ("/klpfarm.v1.LivepatchService/Watch", VIEWER),
    ("/klpfarm.v1.LivepatchService/Logs", VIEWER),
    ("/klpfarm.v1.LivepatchService/GetArtifact", VIEWER),
    ("/klpfarm.v1.LivepatchService/Groups", VIEWER),
    ("/klpfarm.v1.LivepatchService/Provenance", VIEWER),
    ("/klpfarm.v1.LivepatchService/Submit", SUBMITTER),
    ("/klpfarm.v1.LivepatchService/Scan", SUBMITTER),
    ("/klpfarm.v1.LivepatchService/Extract", SUBMITTER),
    ("/klpfarm.v1.LivepatchService/Retry", SUBMITTER),
    ("/klpfarm.v1.LivepatchService/Cancel", SUBMITTER),
    ("/klpfarm.v1.LivepatchService/Pause", SUBMITTER),
    ("/klpfarm.v1.LivepatchService/Resume", SUBMITTER),
    // Goes at others' expense.
    ("/klpfarm.v1.LivepatchService/SetShare", OPERATOR),
    ("/klpfarm.v1.FleetService/ListWorkers", VIEWER),
    ("/klpfarm.v1.FleetService/ListCodestreams", VIEWER),
    ("/klpfarm.v1.FleetService/Queue", VIEWER),
    ("/klpfarm.v1.FleetService/Drain", OPERATOR),
    ("/klpfarm.v1.FleetService/Undrain", OPERATOR),
    ("/klpfarm.v1.FleetService/Forget", OPERATOR),
    ("/klpfarm.v1.WorkerService/Session", WORKER),
    ("/klpfarm.v1.WorkerService/AppendLog", WORKER),
    ("/klpfarm.v1.WorkerService/UploadArtifact", WORKER),
    ("/klpfarm.v1.WorkerService/DownloadArtifact", WORKER),
    ("/klpfarm.v1.WorkerService/AnswerErrand", WORKER),
    ("/klpfarm.v1.WorkerService/Commit", WORKER),
    ("/klpfarm.v1.AccessService/CreateToken", ADMIN),
    ("/klpfarm.v1.AccessService/ListTokens", ADMIN),
    ("/klpfarm.v1.AccessService/RevokeToken", ADMIN),
    ("/klpfarm.v1.AccessService/CreateEnrollment", ADMIN),
    // With a token of its own.
    ("/klpfarm.v1.AccessService/Enroll", ANYBODY),
    ("/klpfarm.v1.AccessService/RenewCertificate", WORKER),
    ("/klpfarm.v1.AccessService/Authorities", VIEWER),
    ("/klpfarm.v1.AccessService/ListCertificates", ADMIN),
    ("/klpfarm.v1.AccessService/RevokeWorker", ADMIN),
    ("/klpfarm.v1.AccessService/ListAudit", ADMIN),
    // What operators' tools ask before anything else; they tell nothing of what the farm does.
    ("/grpc.health.v1.Health/Check", ANYBODY),
    ("/grpc.health.v1.Health/Watch", ANYBODY),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", ANYBODY),
];

/// HTTP's, by method and route. HEAD needs what GET does.
pub const HTTP: &[(&str, &str, Needs)] = &[
    ("GET", "/", VIEWER),
    ("GET", "/livepatches/{name}", VIEWER),
    ("GET", "/livepatches/{name}/compare", VIEWER),
    ("GET", "/livepatches/{name}/{codestream}/{arch}", VIEWER),
    ("GET", "/workers", VIEWER),
    ("GET", "/queue", VIEWER),
    ("GET", "/api/v1/livepatches", VIEWER),
    ("GET", "/api/v1/livepatches/{name}", VIEWER),
    ("GET", "/api/v1/livepatches/{name}/groups", VIEWER),
    ("GET", "/api/v1/livepatches/{name}/attempts", VIEWER),
    ("GET", "/api/v1/livepatches/{name}/findings", VIEWER),
    ("GET", "/api/v1/livepatches/{name}/events", VIEWER),
    ("POST", "/api/v1/livepatches/{name}/{action}", SUBMITTER),
    ("GET", "/api/v1/tasks/{id}", VIEWER),
    ("GET", "/api/v1/tasks/{id}/attempts", VIEWER),
    ("GET", "/api/v1/tasks/{id}/log", VIEWER),
    ("GET", "/api/v1/artifacts/{digest}", VIEWER),
    ("GET", "/api/v1/workers", VIEWER),
    ("POST", "/api/v1/workers/{name}/{action}", OPERATOR),
    ("GET", "/api/v1/queue", VIEWER),
    ("GET", "/api/v1/codestreams", VIEWER),
    ("GET", "/api/v1/changes", VIEWER),
    ("GET", "/api/v1/openapi.json", VIEWER),
    ("GET", "/metrics", VIEWER),
    ("GET", "/assets/{file}", ANYBODY),
    ("GET", "/healthz", ANYBODY),
    ("GET", "/login", ANYBODY),
    ("POST", "/login", ANYBODY),
    ("POST", "/logout", ANYBODY),
];

/// What a method of gRPC needs; `None`: there is none of that path.
pub fn grpc(path: &str) -> Option<Needs> {
    GRPC.iter().find(|(known, _)| *known == path).map(|(_, needs)| *needs)
}

/// What a route needs. A method that a route does not serve needs what looking does, to be told so.
pub fn http(method: &str, route: &str) -> Option<Needs> {
    let method = if method == "HEAD" { "GET" } else { method };
    let on_route = || HTTP.iter().filter(|(_, known, _)| *known == route);
    let exact = on_route().find(|(known, _, _)| *known == method);
    let unserved = || {
        on_route()
            .next()
            .map(|(_, _, needs)| if *needs == ANYBODY { ANYBODY } else { VIEWER })
    };
    exact.map(|(_, _, needs)| *needs).or_else(unserved)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    /// The methods of all services in a description.
    fn described(description: &[u8]) -> BTreeSet<String> {
        let set = prost_types::FileDescriptorSet::decode(description).unwrap();
        let mut methods = BTreeSet::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    methods.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        methods
    }

    #[test]
    fn every_method_of_every_service_is_in_the_table_once() {
        let mut all = described(klp_proto::v1::FILE_DESCRIPTOR_SET);
        assert!(all.len() > 30, "{all:?}");
        all.extend(described(tonic_health::pb::FILE_DESCRIPTOR_SET));
        all.extend(described(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET));
        let table: BTreeSet<String> = GRPC.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(table.len(), GRPC.len(), "a method is in the table twice");
        assert_eq!(table, all);
    }

    #[test]
    fn every_route_of_the_description_is_in_the_table() {
        let description: serde_json::Value = serde_json::from_str(&crate::web::description()).unwrap();
        let paths = description["paths"].as_object().unwrap();
        for (path, methods) in paths {
            for method in methods.as_object().unwrap().keys() {
                let method = method.to_ascii_uppercase();
                let listed = HTTP.iter().any(|(known, route, _)| *known == method && route == path);
                assert!(listed, "{method} {path} is not in the table");
            }
        }
        assert!(paths.len() > 10);
        let unserved = http("DELETE", "/api/v1/livepatches/{name}/{action}");
        assert_eq!(unserved, Some(VIEWER));
    }
}
