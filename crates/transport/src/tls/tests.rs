use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};

use super::*;

fn authority() -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.self_signed(&key).expect("signed").pem(), Issuer::new(params, key))
}

fn issue(issuer: &Issuer<'static, KeyPair>, uri: &str, days_left: i64) -> (String, String) {
    issue_for(issuer, uri, days_left, &[])
}

/// For these purposes; none: for all.
fn issue_for(
    issuer: &Issuer<'static, KeyPair>,
    uri: &str,
    days_left: i64,
    purposes: &[ExtendedKeyUsagePurpose],
) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ASCII"))];
    params.extended_key_usages = purposes.to_vec();
    let day = Duration::from_secs(24 * 60 * 60);
    #[expect(clippy::disallowed_methods, reason = "certificates are of today")]
    let now = SystemTime::now();
    params.not_before = (now - 10 * day).into();
    let left = day * u32::try_from(days_left.unsigned_abs()).expect("small");
    params.not_after = if days_left < 0 { now - left } else { now + left }.into();
    (params.signed_by(&key, issuer).expect("signed").pem(), key.serialize_pem())
}

/// Catches credentials that are put into force although the other nodes would refuse them, and an error that names the
/// wrong file.
#[test]
fn what_others_would_refuse_is_refused_here() {
    let (ca, issuer) = authority();
    let (other_ca, _) = authority();
    let (certificate, key) = issue(&issuer, "quorate://demo/a", 30);
    let read = |certificate: &str, key: &str, ca: &str| {
        Credentials::read(certificate.as_bytes(), key.as_bytes(), ca.as_bytes())
    };
    let good = read(&certificate, &key, &ca).expect("they are good");
    assert_eq!(good.name(), &Name { cluster: "demo".into(), node: "a".into() });
    #[expect(clippy::disallowed_methods, reason = "certificates are of today")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let left = good.not_after() - i64::try_from(now).expect("not so late");
    assert!((29 * 86_400..=30 * 86_400).contains(&left), "{left}");
    assert!(good.authorities_not_after() > good.not_after());

    let (_, key_of_another) = issue(&issuer, "quorate://demo/a", 30);
    let (expired, key_of_expired) = issue(&issuer, "quorate://demo/a", -1);
    let (nameless, key_of_nameless) = issue(&issuer, "https://demo/a", 30);
    let refused = |result: Result<Credentials, Unusable>| result.map(drop).expect_err("not usable");
    let says = |unusable: Unusable, expected: &str| assert!(unusable.to_string().contains(expected), "{unusable}");
    let wrong_key = refused(read(&certificate, &key_of_another, &ca));
    assert!(matches!(wrong_key, Unusable::Key(_)), "{wrong_key:?}");
    assert!(matches!(refused(read(&certificate, "nothing", &ca)), Unusable::Key(_)));
    says(refused(read(&expired, &key_of_expired, &ca)), "has expired");
    says(refused(read(&nameless, &key_of_nameless, &ca)), "quorate://CLUSTER/NODE");
    says(refused(read(&certificate, &key, &other_ca)), "no authority in tls.peer_ca");
    assert!(matches!(refused(read("", &key, &ca)), Unusable::Certificate(_)));
    for (purpose, says_why) in [
        (ExtendedKeyUsagePurpose::ServerAuth, "that dials"),
        (ExtendedKeyUsagePurpose::ClientAuth, "refused by the other nodes"),
    ] {
        let (half, key_of_half) = issue_for(&issuer, "quorate://demo/a", 30, &[purpose]);
        says(refused(read(&half, &key_of_half, &ca)), says_why);
    }
    for nonsense in ["", "nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(matches!(refused(read(&certificate, &key, nonsense)), Unusable::Authorities(_)), "{nonsense}");
    }
}

/// Catches a key that a log or an error shows.
#[test]
fn no_key_is_shown() {
    let (ca, issuer) = authority();
    let (certificate, key) = issue(&issuer, "quorate://demo/a", 30);
    let pair = Pair::read(certificate.as_bytes(), key.as_bytes()).expect("PEM");
    let shown = format!("{pair:?} {:?}", Credentials::read(certificate.as_bytes(), key.as_bytes(), ca.as_bytes()));
    let secret = key.lines().nth(1).expect("it has lines");
    assert!(!shown.contains(secret) && shown.len() < 400, "{shown}");
}

/// Catches names of nodes that could be read in two ways.
#[test]
fn a_uri_names_one_node_or_none() {
    let name = |uri: &str| Name::of_uri(uri).map(|name| (name.cluster, name.node));
    assert_eq!(name("quorate://demo/a"), Some(("demo".into(), "a".into())));
    for uri in [
        "quorate://demo",
        "quorate://demo/",
        "quorate:///a",
        "quorate://demo/a/b",
        "http://demo/a",
        "quorate://demo/a?b",
        "quorate://demo/*",
        "",
    ] {
        assert_eq!(name(uri), None, "{uri}");
    }
}
