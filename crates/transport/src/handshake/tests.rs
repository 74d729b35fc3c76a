use super::*;

const NEWEST: u32 = Versions::SPOKEN.newest;

pub(crate) fn identity() -> Identity {
    Identity {
        me: NodeId(1),
        name: "a".into(),
        cluster: ClusterId([7; 16]),
        cluster_name: "demo".into(),
        learn_from: LearnFrom::Leader,
        window: 1024,
        auth: false,
        versions: Versions::SPOKEN,
    }
}

fn known(node: NodeId, name: &str) -> Known {
    match node {
        NodeId(2) => Known::Member("b".to_owned()),
        NodeId(4) => Known::Removed((name == "b").then_some(NodeId(2))),
        _ => Known::Unknown,
    }
}

fn hello() -> Hello {
    let dialer = Identity { me: NodeId(2), name: "b".into(), ..identity() };
    dialer.hello(NodeId(1), Lane::Protocol, None)
}

fn with_promise(round: u64) -> Disk {
    Disk { promise_round: round, ..Disk::default() }
}

/// RELIABILITY 6, row 3: catches a peer that gets in although one thing about it is wrong, and
/// a refusal whose reason misleads the operator.
#[test]
fn each_mistake_has_its_own_refusal() {
    assert_eq!(identity().judge(&hello(), known), Ok((NodeId(2), Lane::Protocol)));
    let mistakes = [
        (Hello { magic: Bytes::from_static(b"raft"), ..hello() }, "not_a_peer"),
        (Hello { version: NEWEST + 1, ..hello() }, "version"),
        (Hello { version: 0, ..hello() }, "version"),
        (Hello { cluster: Bytes::from_static(&[8; 16]), ..hello() }, "other_cluster"),
        (Hello { cluster: Bytes::from_static(&[7; 15]), ..hello() }, "other_cluster"),
        (Hello { node: 1, ..hello() }, "own_id"),
        (Hello { node: 3, ..hello() }, "unknown_node"),
        (Hello { node: 0, ..hello() }, "unknown_node"),
        (Hello { node: 4, ..hello() }, "removed"),
        (Hello { node: 4, expects: 3, ..hello() }, "removed"),
        (Hello { node: 4, disk: Some(with_promise(0)), node_name: "c".into(), ..hello() }, "removed"),
        (Hello { node: 4, disk: Some(with_promise(1)), ..hello() }, "removed"),
        (Hello { node: 4, disk: Some(with_promise(0)), ..hello() }, "lost_disk"),
        (Hello { node: 4, expects: 4, disk: Some(with_promise(0)), ..hello() }, "lost_disk"),
        // One that only learns has never promised anything, and comes back by itself.
        (Hello { node: 4, disk: Some(Disk { told: true, ..with_promise(0) }), ..hello() }, "removed"),
        (Hello { node: 4, cluster: Bytes::from_static(&[8; 16]), ..hello() }, "other_cluster"),
        (Hello { node_name: "c".into(), ..hello() }, "other_name"),
        (Hello { expects: 3, ..hello() }, "wrong_node"),
        (Hello { expects: 4, ..hello() }, "not_any_more"),
        (Hello { learn_from: Some("voters".into()), ..hello() }, "other_learn_from"),
        (Hello { learn_from: Some(String::new()), ..hello() }, "other_learn_from"),
        (Hello { lane: 4, ..hello() }, "unknown_lane"),
        // The version comes first: what another version means by its ids is not known.
        (Hello { version: NEWEST + 1, cluster: Bytes::new(), node: 9, ..hello() }, "version"),
    ];
    for (hello, reason) in mistakes {
        let refusal = identity().judge(&hello, known).expect_err(reason);
        assert_eq!(refusal.reason(), reason, "{refusal}");
    }
}

/// Catches a node that was recovered, has lost its disk again, and is not told what to do, or goes on; and one that comes
/// with what it has promised, and gives that up on the word of one member, or counts the word of one for that of two.
#[test]
fn a_removed_node_is_told_what_it_can_do() {
    let refuse = |hello: Hello| identity().judge(&hello, known).expect_err("it is no member").answer();
    let lost = refuse(Hello { node: 4, expects: 4, disk: Some(with_promise(0)), ..hello() });
    assert!(lost.disk_refused && !lost.removed && !lost.passes, "{lost:?}");
    let Some(Verdict::Refused(text)) = lost.verdict else { panic!("it got in") };
    assert!(text.contains("\"b\" is node 2 by now") && text.contains("quorate recover"), "{text}");
    for expects in [1, 3] {
        let removed = refuse(Hello { node: 4, expects, disk: Some(with_promise(1)), ..hello() });
        assert_eq!((removed.removed, removed.disk_refused, removed.passes), (expects == 1, false, false));
        let Some(Verdict::Refused(text)) = removed.verdict else { panic!("it got in") };
        assert!(text.contains("quorate recover --force"), "{text}");
    }
    assert!(refuse(Hello { node: 3, ..hello() }).passes && refuse(Hello { expects: 4, ..hello() }).passes);
    assert!(!refuse(Hello { expects: 3, ..hello() }).passes, "an address is wrong");
}

/// Catches a node that is taken for one of another cluster by a wrong address, by a cluster of another name, or by one that
/// nobody has begun; and one that is called by its name and address, and does not notice.
#[test]
fn who_is_called_by_another_cluster_of_its_name_notices() {
    let called = |cluster: u8, hello: Hello| {
        let expects_name = hello.expects_name.or(Some("a".into()));
        let hello = Hello { cluster: Bytes::from(vec![cluster; 16]), expects_name, ..hello };
        match identity().judge(&hello, known) {
            Err(Refusal::OtherCluster { claims, .. }) => Some(claims),
            Ok(_) | Err(_) => None,
        }
    };
    let begun = || Hello { disk: Some(with_promise(1)), ..hello() };
    assert_eq!(called(8, begun()), Some(true));
    assert_eq!(called(8, Hello { expects: 4, ..begun() }), Some(true), "it has another id there");
    assert_eq!(
        called(8, Hello { disk: Some(Disk { told: true, ..with_promise(0) }), ..hello() }),
        Some(true),
        "it joined"
    );
    assert_eq!(called(8, Hello { expects_name: Some("c".into()), ..begun() }), Some(false), "an address is wrong");
    assert_eq!(called(8, Hello { cluster_name: "other".into(), ..begun() }), Some(false));
    assert_eq!(called(8, Hello { disk: Some(with_promise(0)), ..hello() }), Some(false), "nobody has begun it");
    assert_eq!(called(8, hello()), Some(false));
    assert_eq!(called(7, begun()), None, "its own");
    let unsaid = Hello { cluster: Bytes::from_static(&[8; 16]), ..begun() };
    assert!(matches!(identity().judge(&unsaid, known), Err(Refusal::OtherCluster { claims: false, .. })));
}

/// Catches a peer of another window, or that asks callers for tokens, that is refused, or not noticed; and a version that does not
/// say its settings and is refused for that.
#[test]
fn a_window_is_compared_and_settings_may_be_missing() {
    let other = Hello { window: Some(16), ..hello() };
    assert_eq!(identity().judge(&other, known), Ok((NodeId(2), Lane::Protocol)));
    assert_eq!(identity().other_window(&other), Some(16));
    assert_eq!(identity().other_window(&hello()), None);
    let open = Hello { auth: Some(true), ..hello() };
    assert_eq!(identity().judge(&open, known), Ok((NodeId(2), Lane::Protocol)));
    assert!(identity().other_auth(&open) && !identity().other_auth(&hello()));
    let silent = Hello { learn_from: None, window: None, auth: None, ..hello() };
    assert_eq!(identity().judge(&silent, known), Ok((NodeId(2), Lane::Protocol)));
    assert_eq!((identity().other_window(&silent), identity().other_auth(&silent)), (None, false));
}

/// Catches an answer that grows with what a stranger sent, or carries its control characters
/// into a log.
#[test]
fn what_a_stranger_says_is_cut_and_escaped() {
    let hello = Hello { node: 9, node_name: "\n\u{1b}".repeat(2_000), ..hello() };
    let learns = Hello { learn_from: Some("\n\u{1b}".repeat(2_000)), ..self::hello() };
    for hello in [hello, learns] {
        let text = identity().judge(&hello, known).expect_err("it is refused").to_string();
        assert!(text.len() < 1_000, "{} bytes", text.len());
        assert!(!text.contains(['\n', '\u{1b}']), "{text:?}");
    }
}

/// Catches a dialer that talks to a node it did not mean, or to one of another version.
#[tokio::test]
async fn the_dialer_checks_who_welcomes_it() {
    let welcome = |version, node| {
        let welcome = Welcome { version, node, node_name: "x".into(), noted: true, oldest: None };
        Answer { verdict: Some(Verdict::Welcome(welcome)), ..Answer::default() }
    };
    let no = || Answer { verdict: Some(Verdict::Refused("no".into())), ..Answer::default() };
    let answers = [
        (welcome(NEWEST, 1), None),
        (welcome(NEWEST, 3), Some("wrong_node")),
        (welcome(NEWEST + 1, 1), Some("version")),
        (no(), Some("refused_by_peer")),
        (Answer { disk_refused: true, ..no() }, Some("refused_by_peer")),
        (Answer { connected_already: true, ..no() }, Some("refused_by_peer")),
        (Answer { removed: true, ..no() }, Some("refused_by_peer")),
        (Answer { passes: true, ..no() }, Some("not_yet")),
        (Answer::default(), Some("not_a_peer")),
    ];
    for (answer, reason) in answers {
        let (mut dialer, mut listener) = tokio::io::duplex(HANDSHAKE_BYTES_MAX);
        write(&mut listener, &answer).await.expect("there is room");
        let result = dial(&mut dialer, &hello()).await;
        assert_eq!(result.as_ref().err().map(DialError::reason), reason);
        assert!(result.as_ref().ok().is_none_or(|noted| *noted), "it says that it was noted");
        assert_eq!(matches!(result, Err(DialError::DiskRefused(_))), answer.disk_refused);
        assert_eq!(matches!(result, Err(DialError::ConnectedAlready(_))), answer.connected_already);
        assert_eq!(matches!(result, Err(DialError::Removed(_))), answer.removed);
        assert_eq!(read::<Hello, _>(&mut listener).await.expect("a hello"), hello());
    }
}

/// Catches a dialer that takes a web server for a peer, and HTTP that is not recognised.
#[tokio::test]
async fn what_is_no_handshake_frame_is_garbage() {
    for (bytes, http) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], true),
        (b"PRI * HTTP/2.0\r\n\r\n", true),
        (b"HTTP/1.1 400 Bad Request\r\n", false),
        (b"\x00\x00\x00\x01\x00\x00\x00\x00x", false),
        (b"abc", false),
    ] {
        let mut stream = bytes;
        let error = read::<Hello, _>(&mut stream).await.expect_err("no frame");
        assert!(matches!(error, ReadError::Garbage { .. }), "{error:?}");
        assert_eq!(error.is_http(), http, "{}", bytes.escape_ascii());
    }
    assert!(matches!(read::<Hello, _>(&mut &b""[..]).await, Err(ReadError::Io(_))), "a probe of the port");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Catches a changed handshake: these frames are the same in every version for ever. If this
/// test fails, the change is wrong, not the test.
#[tokio::test]
async fn handshake_frames_never_change() {
    let refused = Answer { verdict: Some(Verdict::Refused("no".into())), ..Answer::default() };
    let with_auth = Hello { auth: Some(true), ..hello() };
    let hello = || Hello { auth: None, ..hello() };
    let first = Hello { learn_from: None, window: None, ..hello() };
    let named = Hello { expects_name: Some("a".into()), ..hello() };
    let disk = Disk {
        id: Bytes::from_static(&[9; 16]),
        starts: 3,
        run: 0x0102_0304,
        promise_round: 7,
        promise_node: 2,
        voted: Some(0),
        recovering: true,
        told: false,
    };
    let with_disk = Hello { disk: Some(disk), ..hello() };
    let for_its_disk = Refusal::OtherDisk(NodeId(2)).answer();
    assert!(for_its_disk.disk_refused && !Refusal::NotNoted(NodeId(2)).answer().disk_refused);
    let already = Refusal::ConnectedAlready(NodeId(2)).answer();
    assert!(already.connected_already && !already.disk_refused, "its disk is not to blame");
    let for_its_disk = Answer { verdict: refused.verdict.clone(), ..for_its_disk };
    let removed = Refusal::Removed { node: NodeId(2), name: "b".into(), is_expected: true }.answer();
    assert!(removed.removed && !removed.disk_refused && !refused.removed && !already.removed);
    let removed = Answer { verdict: refused.verdict.clone(), ..removed };
    let versions = Versions { oldest: 1, newest: 2 };
    let told = Hello { disk: with_disk.disk.clone().map(|disk| Disk { told: true, ..disk }), ..with_disk.clone() };
    let told = Hello { version: versions.newest, oldest: versions.said_oldest(), ..told };
    let of_two = Identity { versions, ..identity() }.welcome(true);
    let passes = Answer { passes: true, ..refused.clone() };
    let mut frames = [const { Vec::new() }; 13];
    write(&mut frames[0], &first).await.expect("memory");
    write(&mut frames[1], &identity().welcome(false)).await.expect("memory");
    write(&mut frames[2], &refused).await.expect("memory");
    write(&mut frames[3], &hello()).await.expect("memory");
    write(&mut frames[4], &with_disk).await.expect("memory");
    write(&mut frames[5], &identity().welcome(true)).await.expect("memory");
    write(&mut frames[6], &for_its_disk).await.expect("memory");
    write(&mut frames[7], &removed).await.expect("memory");
    write(&mut frames[8], &told).await.expect("memory");
    write(&mut frames[9], &of_two).await.expect("memory");
    write(&mut frames[10], &passes).await.expect("memory");
    write(&mut frames[11], &named).await.expect("memory");
    write(&mut frames[12], &with_auth).await.expect("memory");
    assert_eq!(read::<Hello, _>(&mut &frames[0][..]).await.expect("a hello"), first);
    assert_eq!(read::<Hello, _>(&mut &frames[3][..]).await.expect("a hello"), hello());
    assert_eq!(read::<Hello, _>(&mut &frames[4][..]).await.expect("a hello"), with_disk);
    assert_eq!(read::<Answer, _>(&mut &frames[2][..]).await.expect("an answer"), refused, "it does not say it");
    assert_eq!(read::<Answer, _>(&mut &frames[6][..]).await.expect("an answer"), for_its_disk);
    assert_eq!(read::<Answer, _>(&mut &frames[7][..]).await.expect("an answer"), removed);
    assert_eq!(read::<Hello, _>(&mut &frames[8][..]).await.expect("a hello"), told);
    assert_eq!(read::<Answer, _>(&mut &frames[9][..]).await.expect("an answer"), of_two);
    assert_eq!(read::<Answer, _>(&mut &frames[10][..]).await.expect("an answer"), passes);
    assert_eq!(read::<Hello, _>(&mut &frames[11][..]).await.expect("a hello"), named);
    assert_eq!(read::<Hello, _>(&mut &frames[12][..]).await.expect("a hello"), with_auth);
    assert_eq!(frames.map(|frame| hex(&frame)), RECORDED);
}

/// The same for those of a newcomer, which may be of a version that is years away from that of whom it asks.
#[tokio::test]
async fn frames_of_newcomers_never_change() {
    let join = Join { address: "d:7080".into(), key: Bytes::from_static(&[3; 16]) };
    let asks = Hello { node: 0, cluster: Bytes::new(), expects: 0, lane: 0, join: Some(join), auth: None, ..hello() };
    let admission = Admission {
        node: 4,
        cluster: Bytes::from_static(&[7; 16]),
        number: 17,
        membership: Bytes::from_static(b"{\"format\":1}"),
    };
    let admitted = identity().admit(admission);
    let refused = |again: Again| Answer {
        verdict: Some(Verdict::Refused("no".into())),
        again: again.into(),
        ..Answer::default()
    };
    let answers = [admitted, refused(Again::Unsaid), refused(Again::Never), refused(Again::Same), refused(Again::Anew)];
    let mut frames = vec![Vec::new()];
    write(&mut frames[0], &asks).await.expect("memory");
    assert_eq!(read::<Hello, _>(&mut &frames[0][..]).await.expect("a hello"), asks);
    for answer in answers {
        let mut frame = Vec::new();
        write(&mut frame, &answer).await.expect("memory");
        assert_eq!(read::<Answer, _>(&mut &frame[..]).await.expect("an answer"), answer);
        frames.push(frame);
    }
    assert_eq!(frames.iter().map(|frame| hex(frame)).collect::<Vec<_>>(), RECORDED_OF_NEWCOMERS);
}

/// `Hello` that asks for a seat, `Welcome` with an admission, `Refused` without a word on asking again, never, under the same
/// key, under another one.
const RECORDED_OF_NEWCOMERS: [&str; 6] = [
    "00000040055d6e780a0c71756f726174652d706565721001220464656d6f3201624a066c6561646572508008621a0a06643a37303830121003030303030303030303030303030303",
    "0000002fd7469d7a0a07080110011a01612a2408041210070707070707070707070707070707071811220c7b22666f726d6174223a317d",
    "000000041a9993bc12026e6f",
    "00000006aaafb93612026e6f3001",
    "00000006b9ff4ac212026e6f3002",
    "000000064b94c9c112026e6f3003",
];

/// `Hello` without settings, `Welcome`, `Refused`, `Hello`, `Hello` with a disk, `Welcome` that noted it, `Refused` for it,
/// `Refused` since the node was removed; `Hello` of two versions by a node that was told its id, `Welcome` of two versions,
/// `Refused` for what passes; `Hello` with the name of whom it expects, and with whether callers need tokens.
const RECORDED: [&str; 13] = [
    "00000031c5c0d95e0a0c71756f726174652d7065657210011a1007070707070707070707070707070707220464656d6f280232016238014002",
    "0000000960b781240a07080110011a0161",
    "000000041a9993bc12026e6f",
    "0000003c4b82ee080a0c71756f726174652d7065657210011a1007070707070707070707070707070707220464656d6f2802320162380140024a066c6561646572508008",
    "0000005f4e01f7720a0c71756f726174652d7065657210011a1007070707070707070707070707070707220464656d6f2802320162380140024a066c65616465725080085a210a1009090909090909090909090909090909100318848688082007280230003801",
    "0000000bcbea52f30a09080110011a01612001",
    "000000064830998c12026e6f1801",
    "0000000637bb7a8e12026e6f3801",
    "0000006377ce3b370a0c71756f726174652d7065657210021a1007070707070707070707070707070707220464656d6f2802320162380140024a066c65616465725080085a230a100909090909090909090909090909090910031884868808200728023000380140016801",
    "0000000d1b03613c0a0b080210011a016120012801",
    "0000000615f66db112026e6f4001",
    "0000003f2d9f47520a0c71756f726174652d7065657210011a1007070707070707070707070707070707220464656d6f2802320162380140024a066c6561646572508008720161",
    "0000003ef31b7ce90a0c71756f726174652d7065657210011a1007070707070707070707070707070707220464656d6f2802320162380140024a066c65616465725080087801",
];
