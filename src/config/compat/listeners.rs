//! Variables of the listeners.

use super::adopt::Adopter;

pub(super) fn adopt(adopter: &mut Adopter<'_>) {
    adopter.address("HOST", "PORT", 8080, "http.listen");
    adopter.address("GRPC_HOST", "GRPC_PORT", 8081, "grpc.listen");
    adopter.address("DEBUG_HOST", "DEBUG_PORT", 6070, "debug.listen");
    if adopter.text("GRPC_UDS").is_some() {
        let message = "tollgate does not listen on Unix sockets; unset it, and set GRPC_HOST and \
                       GRPC_PORT";
        adopter.refuse("GRPC_UDS", message);
    }
    adopter.copy_duration("GRPC_MAX_CONNECTION_AGE", "grpc.max_connection_age");
    adopter.copy_duration("GRPC_MAX_CONNECTION_AGE_GRACE", "grpc.drain_timeout");
    tls(adopter);
    health(adopter);
}

fn tls(adopter: &mut Adopter<'_>) {
    const FILES: [(&str, &str); 2] = [
        ("GRPC_SERVER_TLS_CERT", "grpc.tls.cert_file"),
        ("GRPC_SERVER_TLS_KEY", "grpc.tls.key_file"),
    ];
    if !adopter.flag("GRPC_SERVER_USE_TLS") {
        return;
    }
    for (name, setting) in FILES {
        if adopter.text(name).is_none() {
            adopter.refuse(name, "is needed with GRPC_SERVER_USE_TLS=true");
        }
        adopter.copy(name, setting);
    }
    adopter.copy("GRPC_CLIENT_TLS_CACERT", "grpc.tls.client_ca_file");
    adopter.copy("GRPC_CLIENT_TLS_SAN", "grpc.tls.client_san");
    // Envoy Gateway sets it, and other callers of the port have no certificate.
    if adopter.text("GRPC_SERVER_TLS_CA_CERT").is_some() {
        let message = "is not read, so that client certificates are not verified; to require them, \
                       set GRPC_CLIENT_TLS_CACERT";
        adopter.inform("GRPC_SERVER_TLS_CA_CERT", message);
    }
}

fn health(adopter: &mut Adopter<'_>) {
    adopter.copy_flag("REDIS_HEALTH_CHECK_ACTIVE_CONNECTION", "health.require_store");
    adopter.copy_flag("HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED", "health.require_policies");
}
