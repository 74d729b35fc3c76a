//! Clusters whose nodes have certificates, for REST and between them.

use std::path::{Path, PathBuf};

use super::{Cluster, client_trusting, quorate};

impl Cluster {
    /// Gives each node a certificate from its next start on, all signed by one authority that the client of this test
    /// trusts from now on.
    pub fn certify(&mut self) {
        let directory = self.certificates();
        let names: Vec<String> = self.nodes.iter().map(|node| node.name.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        create_certificates(&directory, &self.name, &names);
        self.trust(&std::fs::read(directory.join("ca.crt")).expect("an authority"));
        self.is_certified = true;
        // As soon as it can be.
        self.set("tls.reload=1s");
    }

    /// Lets the client of this test trust the authorities in a text of PEM, and no others.
    pub fn trust(&mut self, ca: &[u8]) {
        self.client = client_trusting(ca);
    }

    /// Where their certificates are.
    #[must_use]
    pub fn certificates(&self) -> PathBuf {
        self.directory.path().join("certificates")
    }

    /// What the configuration of a node says of them.
    pub(super) fn tls_section(&self, node: usize) -> String {
        if !self.is_certified {
            return String::new();
        }
        let file = |end: &str| format!("{:?}", self.certificates().join(end));
        let name = &self.nodes[node].name;
        let (certificate, key, ca) = (file(&format!("{name}.crt")), file(&format!("{name}.key")), file("ca.crt"));
        format!(
            "[tls]\nhttp_certificate = {certificate}\nhttp_key = {key}\npeer_certificate = {certificate}\n\
             peer_key = {key}\npeer_ca = {ca}\n"
        )
    }
}

/// Lets the binary make an authority, where there is none yet, and certificates of nodes.
pub fn create_certificates(directory: &Path, cluster: &str, nodes: &[&str]) {
    create_of(directory, cluster, "--node", nodes);
}

/// The same of a gateway without data.
pub fn create_certificate_of_gateway(directory: &Path, cluster: &str, gateway: &str) {
    create_of(directory, cluster, "--gateway", &[gateway]);
}

fn create_of(directory: &Path, cluster: &str, kind: &str, names: &[&str]) {
    let mut create = quorate();
    create.args(["certificates", "create", "--cluster", cluster]).arg(directory);
    for name in names {
        create.args([kind, name]);
    }
    let made = create.output().expect("the binary runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
