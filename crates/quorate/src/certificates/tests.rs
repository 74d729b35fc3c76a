use std::fs::Permissions;
use std::os::unix::fs::OpenOptionsExt as _;

use super::*;
use crate::cli::{Create, Output};

fn create(directory: &Path, node: &str) -> Result<(), Failure> {
    create_both(directory, &[node], &[])
}

fn create_both(directory: &Path, nodes: &[&str], gateways: &[&str]) -> Result<(), Failure> {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    create::run(&Create {
        directory: directory.to_owned(),
        cluster: "demo".into(),
        nodes: owned(nodes),
        gateways: owned(gateways),
        hosts: vec!["10.0.0.1".into(), "example.com".into()],
        days: 60,
        output: Output::Json,
    })
}

fn config(directory: &Path, node: &str) -> config::Tls {
    let file = |name: &str| directory.join(name);
    let (certificate, key) = (file(&format!("{node}.crt")), file(&format!("{node}.key")));
    config::Tls {
        http: Some(config::tls::HttpTls { certificate: certificate.clone(), key: key.clone() }),
        peer: Some(config::tls::PeerTls { certificate, key, authorities: file("ca.crt") }),
        reload: Duration::from_secs(1),
    }
}

fn usage(result: Result<(), Failure>) -> String {
    match result {
        Err(Failure::Usage(line)) => line,
        other => panic!("{other:?}"),
    }
}

/// Catches certificates that a node does not take, or takes for another one; files that are overwritten; an authority
/// that cannot sign for a node that comes later; and keys that others may read.
#[test]
fn what_is_created_is_taken() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path().join("certificates");
    create(&directory, "a").expect("created");
    let certificates = Certificates::read(&config(&directory, "a")).expect("usable");
    certificates.check_name("demo", "a").expect("it names the node");
    assert!(
        usage(certificates.check_name("demo", "b"))
            .contains("names quorate://demo/a, and this node is quorate://demo/b")
    );
    assert!(certificates.server_config().expect("TLS").is_some());
    let mode = |file: &str| fs::metadata(directory.join(file)).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode("a.key"), mode("ca.key"), mode("a.crt"), mode("")), (0o600, 0o600, 0o644, 0o700));

    let kept = fs::read(directory.join("a.key")).expect("a key");
    assert!(usage(create(&directory, "a")).contains("a.crt is there already"));
    assert_eq!(fs::read(directory.join("a.key")).expect("a key"), kept);
    let ca = fs::read(directory.join("ca.crt")).expect("a certificate");
    create(&directory, "b").expect("the authority signs again");
    assert_eq!(fs::read(directory.join("ca.crt")).expect("a certificate"), ca);
    Certificates::read(&config(&directory, "b")).expect("usable").check_name("demo", "b").expect("b");
    assert!(usage(create(&directory, "no name")).contains("1 to 64 letters"));
}

/// RELIABILITY 6.2: catches a certificate of a gateway by which who takes it is taken for a node, and one that serves no callers.
#[test]
fn a_gateway_is_no_peer() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    create_both(directory, &["a"], &["front"]).expect("created");
    let as_peer = usage(Certificates::read(&config(directory, "front")).map(drop));
    assert!(as_peer.starts_with("tls.peer_certificate = "), "{as_peer}");
    let http = config::Tls { peer: None, ..config(directory, "front") };
    assert!(Certificates::read(&http).expect("usable").server_config().expect("TLS").is_some());
    assert!(usage(create_both(directory, &[], &["front"])).contains("front.crt is there already"));
}

/// Catches an error that names the wrong key, or none; and a key that everybody may read.
#[test]
fn a_file_that_is_not_usable_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    create(directory, "a").expect("created");
    create(directory, "b").expect("created");
    let wrong = |change: &dyn Fn(&mut config::Tls)| {
        let mut config = config(directory, "a");
        change(&mut config);
        usage(Certificates::read(&config).map(drop))
    };
    let http = |tls: &mut config::Tls, key: &str| tls.http.as_mut().expect("it has").key = directory.join(key);
    assert!(wrong(&|tls| http(tls, "b.key")).starts_with("tls.http_key = "));
    assert!(wrong(&|tls| http(tls, "absent")).contains("cannot be read"));
    let peer = |tls: &mut config::Tls, ca: &str| tls.peer.as_mut().expect("it has").authorities = directory.join(ca);
    assert!(wrong(&|tls| peer(tls, "a.crt")).starts_with("tls.peer_certificate = "));
    assert!(wrong(&|tls| peer(tls, "ca.key")).starts_with("tls.peer_ca = "));
    fs::set_permissions(directory.join("b.key"), Permissions::from_mode(0o604)).expect("changed");
    assert!(wrong(&|tls| http(tls, "b.key")).contains("everybody on this machine may read it (mode 0604)"));
}

/// Catches a certificate that expires before anybody was warned of it, one that is warned of at every look, and one that was
/// replaced and is warned of still.
#[test]
fn who_expires_soon_is_warned_of_once_a_day() {
    let directory = tempfile::tempdir().expect("a directory");
    create(directory.path(), "a").expect("created");
    let mut certificates = Certificates::read(&config(directory.path(), "a")).expect("usable");
    let day = |days: u32| WARNED_EVERY * days;
    let begun = wall_clock();
    let peer = &mut certificates.sets[1];
    let mut names = |at: SystemTime| peer.expiring(at).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    // Those of a node are made for 60 days here, the authority for longer.
    assert_eq!(names(begun + day(29)), Vec::<&str>::new());
    assert_eq!(names(begun + day(31)), ["peer"]);
    assert_eq!(names(begun + day(31) + WARNED_EVERY / 2), Vec::<&str>::new(), "it was said today");
    assert_eq!(names(begun + day(32)), ["peer"], "and is said again");
    assert_eq!(names(begun + day(90)), ["peer"], "when it is too late, too");
    peer.expiry = vec![("peer", i64::MAX)];
    assert!(peer.expiring(begun + day(92)).is_empty());
}

/// RELIABILITY 6, row 4. Catches new files that do not come into force, unusable ones that do, or that are complained of
/// while they are half replaced, and a certificate of another node that takes the place of this one's.
#[test]
fn changed_files_come_into_force_when_they_are_whole() {
    let (old, new) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    create(old.path(), "a").expect("created");
    create(new.path(), "a").expect("created");
    create(new.path(), "b").expect("created");
    let mut certificates = Certificates::read(&config(old.path(), "a")).expect("usable");
    let shown = Arc::clone(certificates.http.as_ref().expect("it has"));
    let leaf = || shown.0.read().expect("no panic").cert[0].clone();
    let first = leaf();
    let copy = |from: &str, to: &str| {
        let content = fs::read(new.path().join(from)).expect("it is there");
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).truncate(true).mode(0o600).open(old.path().join(to)).expect("it is there");
        std::io::Write::write_all(&mut file, &content).expect("written");
    };
    let look = |certificates: &mut Certificates| {
        certificates.sets.iter_mut().for_each(Set::look);
        certificates.sets.iter().map(|set| set.failing.map(|(_, said)| said)).collect::<Vec<_>>()
    };
    assert_eq!(look(&mut certificates), [None, None]);
    copy("a.crt", "a.crt");
    assert_eq!(look(&mut certificates), [Some(false), Some(false)], "half of it");
    assert_eq!(look(&mut certificates), [Some(true), Some(true)], "and it stays so");
    assert_eq!(leaf(), first);
    copy("a.key", "a.key");
    copy("ca.crt", "ca.crt");
    assert_eq!(look(&mut certificates), [None, None]);
    assert_ne!(leaf(), first);
    copy("b.crt", "a.crt");
    copy("b.key", "a.key");
    assert_eq!(look(&mut certificates), [None, Some(false)], "REST has no name of a node");
    let peer = certificates.peer.as_ref().expect("it has");
    assert_eq!(peer.name().node, "a");
    fs::remove_file(old.path().join("a.key")).expect("removed");
    assert_eq!(look(&mut certificates), [Some(false), Some(false)]);
}
