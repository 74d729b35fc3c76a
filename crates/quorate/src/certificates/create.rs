//! `quorate certificates create`: an authority and certificates of nodes, for tests and for who has no authority.
//!
//! What is there is never overwritten. Where the authority is there already, it signs for the nodes that are new. Each
//! node gets one certificate that serves both uses: it names the node for the others, and the host for callers. A gateway
//! without data is no peer: its certificate names hosts only, so that who takes it is taken for no node.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use protocol::membership::is_name;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;
use transport::tls::Name;

use super::wall_clock;
use crate::cli::{Create, Output};
use crate::client::show;
use crate::failure::Failure;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Certificates are valid from a little before they are made: clocks differ.
const BEFORE: Duration = Duration::from_secs(60 * 60);
/// The authority outlives what it signs, so that it can sign again.
const AUTHORITY_DAYS: u32 = 3650;

/// Makes the files.
///
/// # Errors
/// A name or host that is none, a file that is there already, or a disk that fails.
pub(crate) fn run(create: &Create) -> Result<(), Failure> {
    let Create { directory, cluster, nodes, gateways, hosts, days, output } = create;
    for name in nodes.iter().chain(gateways).chain([cluster]) {
        if !is_name(name) {
            let needs = "a name has 1 to 64 letters, digits, '.', '_' or '-'";
            return Err(Failure::Usage(format!("{name:?}: {needs}, as in node.name and cluster.name")));
        }
    }
    let (ca_certificate, ca_key) = (directory.join("ca.crt"), directory.join("ca.key"));
    let has_authority = ca_key.exists();
    let new = nodes
        .iter()
        .chain(gateways)
        .flat_map(|node| [".crt", ".key"].map(|end| directory.join(format!("{node}{end}"))));
    let of_authority = (!has_authority).then(|| ca_certificate.clone());
    if let Some(taken) = new.chain(of_authority).find(|file| file.exists()) {
        return Err(Failure::Usage(format!("{} is there already; name another directory or node", taken.display())));
    }
    let made = (|| -> anyhow::Result<Vec<PathBuf>> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).context("the directory")?;
        let mut made = Vec::new();
        let issuer = if has_authority {
            read_authority(&ca_certificate, &ca_key)?
        } else {
            let (issuer, certificate) = new_authority(cluster)?;
            write(&ca_key, &issuer.key().serialize_pem(), 0o600)?;
            write(&ca_certificate, &certificate, 0o644)?;
            made.extend([ca_certificate.clone(), ca_key.clone()]);
            issuer
        };
        let peers = nodes.iter().map(|node| (node, Some(Name { cluster: cluster.clone(), node: node.clone() })));
        for (name, peer) in peers.chain(gateways.iter().map(|gateway| (gateway, None))) {
            let (certificate, key) = new_certificate(&issuer, name, peer, hosts, *days)?;
            let files = [directory.join(format!("{name}.crt")), directory.join(format!("{name}.key"))];
            write(&files[1], &key, 0o600)?;
            write(&files[0], &certificate, 0o644)?;
            made.extend(files);
        }
        Ok(made)
    })()?;
    Ok(report(directory, nodes, &made, *output)?)
}

fn new_authority(cluster: &str) -> anyhow::Result<(Issuer<'static, KeyPair>, String)> {
    let key = KeyPair::generate()?;
    let mut params = valid_for(AUTHORITY_DAYS);
    params.distinguished_name = called(&format!("Quorate authority of {cluster}"));
    // It signs for nodes, and for no other authority.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), certificate))
}

fn read_authority(certificate: &Path, key: &Path) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let read = |file: &Path| fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()));
    let pair = KeyPair::from_pem(&read(key)?).with_context(|| format!("{} holds no key", key.display()))?;
    let issuer = Issuer::from_ca_cert_pem(&read(certificate)?, pair);
    issuer.with_context(|| format!("{} holds no certificate", certificate.display()))
}

/// For REST, and for a peer of that name.
fn new_certificate(
    issuer: &Issuer<'static, KeyPair>,
    name: &str,
    peer: Option<Name>,
    hosts: &[String],
    days: u32,
) -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate()?;
    let mut params = valid_for(days);
    params.distinguished_name = called(name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if let Some(peer) = peer {
        params.subject_alt_names = vec![SanType::URI(peer.to_string().try_into()?)];
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    let own = ["localhost", "127.0.0.1", "::1", name];
    for host in own.into_iter().chain(hosts.iter().map(String::as_str)) {
        let name = match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.try_into().with_context(|| format!("{host:?} is no name of a host"))?),
        };
        params.subject_alt_names.push(name);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok((params.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}

fn valid_for(days: u32) -> CertificateParams {
    let now = wall_clock();
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = ((now - BEFORE).into(), (now + DAY * days).into());
    params
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

fn write(file: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(file).and_then(|mut opened| {
        opened.write_all(text.as_bytes())?;
        opened.sync_all()
    });
    written.with_context(|| format!("{} cannot be written", file.display()))
}

fn report(directory: &Path, nodes: &[String], made: &[PathBuf], output: Output) -> anyhow::Result<()> {
    let files: Vec<String> = made.iter().map(|file| file.display().to_string()).collect();
    if output == Output::Json {
        return show(format!("{}\n", json!({ "made": files })));
    }
    let mut text = files.join("\n");
    text.push('\n');
    if let Some(node) = nodes.first() {
        let file = |name: &str| directory.join(name).display().to_string();
        let (certificate, key, ca) = (file(&format!("{node}.crt")), file(&format!("{node}.key")), file("ca.crt"));
        text.push_str(&format!(
            "\nIn the configuration of node {node}:\n[tls]\npeer_certificate = {certificate:?}\npeer_key = {key:?}\n\
             peer_ca = {ca:?}\nhttp_certificate = {certificate:?}\nhttp_key = {key:?}\n\n\
             Callers trust it with --ca {ca}. Keep ca.key away from the nodes: whoever has it can be any of them.\n"
        ));
    }
    show(text)
}
