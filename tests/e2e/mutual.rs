//! Envoy and tollgate with certificates on both sides, by the block of docs/tls.md: no server name,
//! names that are checked, and a renewal of both certificates under load.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::stack::Stack;
use crate::support::certs::{Authority, write};
use crate::support::wait::until;
use crate::traffic::Traffic;

/// Of Envoy.
const CLIENT: &str = "spiffe://mesh/ns/edge/sa/envoy";
/// Where the docs keep Envoy's files.
const SHIPPED_PATH: &str = "/etc/envoy/certs";

/// Certificates of both sides, as files that are swapped.
pub struct Certificates {
    authority: Authority,
    pub dir: TempDir,
}

impl Certificates {
    pub fn new() -> Self {
        let made = Self { authority: Authority::new("mesh"), dir: tempfile::tempdir().unwrap() };
        made.authority.file(made.path("ca.crt"));
        made.renew_tollgate(0);
        made.renew_envoy(0);
        let authority = format!(
            "resources:\n- '@type': {SECRET}\n  name: authority\n  validation_context: {{ trusted_ca: \
             {{ filename: {} }} }}\n",
            made.path("ca.crt").display()
        );
        write(&made.path("authority.yaml"), &authority);
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Swaps the directory of tollgate's files, as Kubernetes does.
    fn renew_tollgate(&self, generation: usize) {
        let dir = self.path(&format!("..tollgate-{generation}"));
        fs::create_dir(&dir).unwrap();
        self.authority.issue(&dir, "tls", &["localhost", "127.0.0.1"]);
        symlink(&dir, self.path("..next")).unwrap();
        fs::rename(self.path("..next"), self.path("tollgate")).unwrap();
    }

    /// Moves a new file for SDS over the old one, which Envoy watches.
    fn renew_envoy(&self, generation: usize) {
        let pair = self.authority.issue(self.dir.path(), &format!("envoy-{generation}"), &[CLIENT]);
        let secret = format!(
            "resources:\n- '@type': {SECRET}\n  name: client\n  tls_certificate:\n    \
             certificate_chain: {{ filename: {} }}\n    private_key: {{ filename: {} }}\n",
            pair.cert.display(),
            pair.key.display()
        );
        write(&self.path("client.yaml"), &secret);
    }

    /// The settings of a tollgate.
    pub fn settings(&self) -> Vec<String> {
        let file = |setting: &str, path: &Path| format!("grpc.tls.{setting}={}", path.display());
        vec![
            file("cert_file", &self.path("tollgate/tls.crt")),
            file("key_file", &self.path("tollgate/tls.key")),
            file("client_ca_file", &self.path("ca.crt")),
            "grpc.tls.client_san=spiffe://mesh/ns/edge/*".to_owned(),
        ]
    }

    /// The block of the docs, for Envoy's cluster.
    pub fn transport_socket(&self) -> String {
        let page = include_str!("../../docs/tls.md");
        let (_, block) = page.split_once("<!-- test: file transport_socket.yaml -->").unwrap();
        let text = block.split("```").nth(1).unwrap().strip_prefix("yaml\n").unwrap();
        assert!(text.contains(SHIPPED_PATH));
        text.replace(SHIPPED_PATH, self.dir.path().to_str().unwrap())
    }
}

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_both_sides_are_renewed_under_load_without_a_failed_request() {
    let certificates = Certificates::new();
    let Some(stack) = Stack::start_over_tls(&certificates).await else { return };
    // Some thousand requests a second, as far as the machine can.
    let traffic = Traffic::start(&stack, 11..=70);
    traffic.goes_on_for(1_000).await;
    for generation in 1..=2 {
        let before = handshakes(&stack).await;
        certificates.renew_tollgate(generation);
        for tollgate in &stack.tollgates {
            tollgate.wait_for("the new certificate is in use", || {
                let log = tollgate.log();
                log.iter().filter(|line| line.contains("have changed")).count() == generation
            });
        }
        certificates.renew_envoy(generation);
        // Connections get old soon; the next ones have the new certificates.
        until("new handshakes", async || (handshakes(&stack).await > before).then_some(())).await;
        traffic.goes_on_for(1_000).await;
    }
    let answers = traffic.end().await;
    assert!(answers.len() > 3_000, "{}", answers.len());
    stack.assert_nothing_was_bypassed().await;
    for tollgate in &stack.tollgates {
        let log = tollgate.log();
        assert!(!log.iter().any(|line| line.contains("a connection was closed")), "{log:#?}");
    }
}

async fn handshakes(stack: &Stack) -> u64 {
    stack.metric("tollgate_tls_handshakes_total").await
}
