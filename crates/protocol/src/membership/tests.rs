use proptest::prelude::*;

use super::*;

fn set(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().map(|id| NodeId(*id)).collect()
}

fn sets(list: &[&[u64]]) -> Rule {
    Rule::Sets(list.iter().map(|ids| set(ids)).collect())
}

/// What a command with this number would leave in the state.
fn written(membership: &Membership, number: u64) -> Membership {
    let entry = Entry { value: membership.to_value(), version: CommandNumber(number) };
    Membership::read(&entry).expect("what we wrote")
}

/// A1c: catches a change that loses nodes, roles or the rule on its way through the state, a number that is not the
/// command's, and acceptors that do not follow the weights.
#[test]
fn a_membership_survives_the_state_with_its_number() {
    let genesis = Membership::of_equals(3);
    assert_eq!((genesis.number(), genesis.last_id()), (CommandNumber(0), NodeId(3)));
    let (joined, id) = genesis.joined("d", "10.0.0.4:7080").expect("a new node");
    assert_eq!(id, NodeId(4));
    assert!(!joined.is_acceptor(id) && joined.learners().any(|learner| learner == id) && joined.may_lead(id));
    let joined = written(&joined, 17);
    assert_eq!(joined.number(), CommandNumber(17));
    let weighing = joined.weighing(id, 2).expect("a learner that becomes an acceptor");
    assert!(weighing.is_acceptor(id) && weighing.majority().is_majority(&set(&[1, 4])));
    assert_eq!(written(&weighing, 18).nodes(), weighing.nodes());
    let ruled = weighing.ruled(sets(&[&[1, 2], &[2, 4]])).expect("they share 2");
    assert!(!ruled.is_acceptor(NodeId(3)) && ruled.is_acceptor(NodeId(4)));
    assert_eq!((ruled.rule(), written(&ruled, 19).rule()), (&sets(&[&[1, 2], &[2, 4]]), ruled.rule()));
    assert_eq!(written(&ruled, 19).majority(), ruled.majority());
    assert_eq!(joined.named("d"), Some(id));
}

/// S-19: catches an id that is given out twice, above all that of a node that has left, and a name that moves to
/// another id.
#[test]
fn ids_are_never_given_out_twice() {
    let genesis = Membership::of_equals(3);
    let (joined, four) = genesis.joined("d", "d:1").expect("a new node");
    let left = joined.without(four).expect("a learner may go");
    let (again, five) = left.joined("d", "d:1").expect("under its old name");
    assert_eq!((five, again.last_id()), (NodeId(5), NodeId(5)));
    assert_eq!(again.check_follows(&joined), Ok(()));
    assert_eq!(joined.check_follows(&left), Err(MembershipError::Reused(four)), "4 has left");
    assert_eq!(genesis.check_follows(&left), Err(MembershipError::Reused(NodeId(4))), "the last id fell");
    let mut other = genesis.nodes().clone();
    other.get_mut(&NodeId(2)).expect("node 2").name = "x".to_owned();
    let other = Membership::genesis(other, Rule::Weights).expect("by itself it is one");
    assert_eq!(other.check_follows(&genesis), Err(MembershipError::Reused(NodeId(2))));
}

/// B2, S-16: catches a membership whose majority sets do not intersect, one that nobody could vote or lead in, and one
/// beyond its bounds; an operator is told by names.
#[test]
fn what_is_no_membership_is_refused_and_says_why() {
    let genesis = Membership::of_equals(3);
    let disjoint = genesis.ruled(sets(&[&[1, 2], &[3]])).expect_err("they share nobody");
    assert_eq!(disjoint, MembershipError::Disjoint("n1, n2".to_owned(), "n3".to_owned()));
    assert!(disjoint.to_string().contains("{n1, n2} and {n3}"), "{disjoint}");
    assert_eq!(genesis.ruled(sets(&[&[1, 9]])), Err(MembershipError::Unknown(NodeId(9))));
    assert_eq!(genesis.ruled(sets(&[])), Err(MembershipError::NoAcceptor));
    let ruled = genesis.ruled(sets(&[&[1, 2]])).expect("one set");
    assert!(matches!(ruled.weighing(NodeId(3), 1), Err(MembershipError::NotInSets(name, _)) if name == "n3"));
    assert!(matches!(ruled.weighing(NodeId(1), 0), Err(MembershipError::NotInSets(name, _)) if name == "n1"));
    assert!(ruled.without(NodeId(1)).is_err(), "it is in the only set");
    assert_eq!(genesis.weighing(NodeId(9), 1), Err(MembershipError::Unknown(NodeId(9))));
    assert_eq!(genesis.without(NodeId(9)), Err(MembershipError::Unknown(NodeId(9))));
    let one = Membership::of_equals(1);
    assert_eq!(one.weighing(NodeId(1), 0), Err(MembershipError::NoAcceptor));
    assert_eq!(one.without(NodeId(1)), Err(MembershipError::Nodes(0)));
    assert!(matches!(one.weighing(NodeId(1), u64::MAX), Err(MembershipError::Weights(_))));
    assert_eq!(genesis.joined("n1", "x:1"), Err(MembershipError::NameTaken("n1".to_owned())));
    assert_eq!(genesis.joined("x", "n1:7080"), Err(MembershipError::AddressTaken("n1:7080".to_owned())));
    for name in ["", "a b", "é", &"x".repeat(65)] {
        assert_eq!(genesis.joined(name, "x:1"), Err(MembershipError::Name(name.to_owned())));
    }
    for address in ["", "x", "x:", "x:0", "x:65536", "x y:1", "[1:2]:3", &format!("{}:1", "x".repeat(400))] {
        assert_eq!(genesis.joined("x", address), Err(MembershipError::Address((*address).to_owned())));
    }
    assert_eq!(Membership::of_equals(64).joined("x", "x:1"), Err(MembershipError::Nodes(65)));
    let quiet =
        genesis.nodes().iter().map(|(id, member)| (*id, Member { may_lead: false, ..member.clone() })).collect();
    assert_eq!(Membership::genesis(quiet, Rule::Weights), Err(MembershipError::NobodyLeads));
    let large = Membership::of_equals(64);
    let pairs = (2..=64).flat_map(|one| (2..one).map(move |other| set(&[1, one, other])));
    let ruled = |count| large.ruled(Rule::Sets(pairs.clone().take(count).collect())).map(|_| ());
    assert_eq!(ruled(SETS_MAX), Ok(()));
    assert_eq!(ruled(SETS_MAX + 1), Err(MembershipError::Sets(SETS_MAX + 1)));
}

/// Catches a node that is taken for one that may lead, and a name or an address that is refused although it is good.
#[test]
fn who_may_lead_and_what_names_are_good() {
    let mut nodes = Membership::of_equals(3).nodes().clone();
    nodes.get_mut(&NodeId(2)).expect("node 2").may_lead = false;
    let membership = Membership::genesis(nodes, Rule::Weights).expect("two may lead");
    assert_eq!([1, 2, 3, 4].map(|id| membership.may_lead(NodeId(id))), [true, false, true, false]);
    for name in ["a.b_c-d", &"x".repeat(NAME_BYTES_MAX)] {
        assert!(is_name(name), "{name}");
    }
    let padded = |length: usize| format!("x:{}1", "0".repeat(length - 3));
    for address in ["a-b.c_d:7080", "[::1]:65535", &padded(ADDRESS_BYTES_MAX)] {
        assert!(is_address(address), "{address}");
    }
    for address in ["[::1:7080", "::1]:7080", "x:+1", &padded(ADDRESS_BYTES_MAX + 1)] {
        assert!(!is_address(address), "{address}");
    }
}

/// A state with one entry, of which only that is asked for.
struct State(Option<Entry>);

impl StateView for State {
    fn get(&self, asked: &Key) -> Result<Option<Entry>, StateError> {
        Ok(self.0.clone().filter(|_| *asked == key()))
    }

    fn scan(&self, _: &str, _: Option<&str>, _: usize) -> Result<Vec<(Key, Entry)>, StateError> {
        unreachable!("nobody scans")
    }

    fn outcome(&self, _: &crate::RequestId) -> Result<Option<crate::StoredOutcome>, StateError> {
        unreachable!("nobody asks for outcomes")
    }
}

/// Catches a node that goes by another membership than the last one: the state's when its own is as new or newer, or its
/// own when the state's is newer; and a text that cannot be read taken for no change.
#[test]
fn the_later_membership_of_two_is_in_force() {
    let mine = (*Membership::of_equals(3)).clone().written_by(CommandNumber(7));
    assert_eq!(mine.number(), CommandNumber(7));
    let state =
        |version| State(Some(Entry { value: Membership::of_equals(2).to_value(), version: CommandNumber(version) }));
    let later = |version| mine.later_in(&state(version)).expect("it can be read").map(|later| later.number());
    assert_eq!([6, 7, 8].map(later), [None, None, Some(CommandNumber(8))]);
    assert_eq!(mine.later_in(&State(None)), Ok(None));
    let damaged = State(Some(Entry { value: Bytes::new(), version: CommandNumber(8) }));
    assert!(mine.later_in(&damaged).is_err());
}

/// Catches a text of a later version, or a damaged one, that is taken for a membership.
#[test]
fn only_what_this_version_writes_is_read() {
    let read = |text: &str| {
        Membership::read(&Entry { value: Bytes::copy_from_slice(text.as_bytes()), version: CommandNumber(1) })
    };
    let good = Membership::of_equals(2).to_value();
    let good = std::str::from_utf8(&good).expect("a text");
    assert!(read(good).is_ok());
    let later = read(&good.replace("\"format\": 1", "\"format\": 2")).expect_err("a later format");
    assert!(later.to_string().contains("start a later version"), "{later}");
    for bad in ["", "{}", "[]", &good.replace("last_id", "other"), &good.replace("\"id\": 2", "\"id\": 1")] {
        assert!(matches!(read(bad), Err(MembershipError::Unreadable(_))), "{bad}");
    }
    assert_eq!(read(&good.replace("\"last_id\": 2", "\"last_id\": 1")), Err(MembershipError::Id(NodeId(2), NodeId(1))));
    assert!(read(&good.replace("\"id\": 1", "\"id\": 0")).is_err(), "0 is nobody");
}

/// S-33: catches a version that reads another membership in what an earlier one wrote (with another weight or other sets two
/// halves would be majorities), or that writes it differently: states of one number have one digest, whoever made them. If
/// this fails, the change is wrong, not the test.
#[test]
fn recorded_memberships_are_read_and_written_as_ever() {
    let weights = include_str!("../../tests/golden/membership-weights");
    let by_sets = include_str!("../../tests/golden/membership-sets");
    let read = |text: &'static str| {
        let entry = Entry { value: Bytes::from_static(text.as_bytes()), version: CommandNumber(17) };
        let membership = Membership::read(&entry).expect("readable");
        assert_eq!(membership.to_value(), text.as_bytes());
        membership
    };
    let weighted = read(weights);
    assert_eq!((weighted.last_id(), weighted.rule()), (NodeId(5), &Rule::Weights));
    assert_eq!(weighted.nodes()[&NodeId(5)].address, "[::1]:7080");
    let acceptors = |membership: &Membership| membership.majority().nodes().iter().map(|id| id.0).collect::<Vec<_>>();
    assert_eq!((acceptors(&weighted), weighted.may_lead(NodeId(4))), (vec![1, 2, 4], false));
    let has = |membership: &Membership, ids: &[u64]| membership.majority().is_majority(&set(ids));
    assert!(has(&weighted, &[2, 4]) && !has(&weighted, &[1, 4]) && !has(&weighted, &[2]));

    let ruled = read(by_sets);
    let rule = sets(&[&[1, 2], &[1, 5], &[2, 5]]);
    assert_eq!((acceptors(&ruled), ruled.rule()), (vec![1, 2, 5], &rule));
    assert!(has(&ruled, &[1, 5]) && !has(&ruled, &[2, 4]));
    // What a change of the rule writes, there and back.
    assert_eq!(weighted.ruled(rule).expect("any two share one").to_value(), by_sets.as_bytes());
    let back = ruled.ruled(Rule::Weights).expect("weights make one").to_value();
    assert_eq!(back, by_sets.split_once(",\n  \"majority_sets\"").expect("it has some").0.to_owned() + "\n}");
}

/// Catches a barrier that is not seen, and every command taken for one.
#[test]
fn a_change_is_known_by_the_key_that_it_writes() {
    let put = |key: &str| Effect::Put { key: Key::new(key).expect("a key"), value: Bytes::new() };
    assert!(is_changed_by(&[put("a"), put("quorate/membership")]));
    assert!(is_changed_by(&[Effect::Delete { key: key() }]));
    assert!(!is_changed_by(&[put("quorate/membershi"), put("membership")]));
    assert!(key().is_reserved() && !Key::new("quorate").expect("a key").is_reserved());
}

/// What somebody asks for.
#[derive(Clone, Debug)]
enum Ask {
    Join(u8),
    Weigh(u64, u64),
    Leave(u64),
    Sets(Vec<Vec<u64>>),
}

fn ask() -> impl Strategy<Value = Ask> {
    let node = || 1_u64..8;
    prop_oneof![
        any::<u8>().prop_map(Ask::Join),
        (node(), 0_u64..3).prop_map(|(node, weight)| Ask::Weigh(node, weight)),
        node().prop_map(Ask::Leave),
        prop::collection::vec(prop::collection::vec(node(), 0..4), 0..4).prop_map(Ask::Sets),
    ]
}

proptest! {
    /// S-16 to S-19: whatever is asked for, in whatever order, catches two disjoint majority sets, an id used twice,
    /// an acceptor that is no node, and a membership that the state would not give back.
    #[test]
    fn any_changes_leave_a_membership(asks in prop::collection::vec(ask(), 1..40)) {
        let mut now = (*Membership::of_equals(3)).clone();
        let mut names: BTreeMap<NodeId, String> = BTreeMap::new();
        for (number, ask) in (1..).zip(asks) {
            let next = match ask {
                Ask::Join(name) => now.joined(&format!("j{name}"), &format!("j{name}:1")).map(|(next, _)| next),
                Ask::Weigh(node, weight) => now.weighing(NodeId(node), weight),
                Ask::Leave(node) => now.without(NodeId(node)),
                Ask::Sets(list) if list.is_empty() => now.ruled(Rule::Weights),
                Ask::Sets(list) => {
                    now.ruled(Rule::Sets(list.into_iter().map(|set| set.into_iter().map(NodeId).collect()).collect()))
                }
            };
            let Ok(next) = next else { continue };
            let entry = Entry { value: next.to_value(), version: CommandNumber(number) };
            let read = Membership::read(&entry).expect("what was written can be read");
            prop_assert_eq!(read.number(), CommandNumber(number));
            prop_assert_eq!((read.nodes(), read.rule(), read.majority()), (next.nodes(), next.rule(), next.majority()));
            prop_assert!(read.check_follows(&now).is_ok());
            prop_assert!(read.majority().nodes().iter().all(|node| read.node(*node).is_some()));
            for (id, member) in read.nodes() {
                let first = names.entry(*id).or_insert_with(|| member.name.clone());
                prop_assert_eq!(&*first, &member.name, "{} is another node now", id);
            }
            let all: Vec<NodeId> = read.majority().nodes().iter().copied().collect();
            for mask in 0..1_u32 << all.len() {
                let (one, other): (Vec<_>, Vec<_>) = (0..all.len()).partition(|bit| mask >> bit & 1 == 1);
                let pick = |bits: Vec<usize>| bits.into_iter().map(|bit| all[bit]).collect::<BTreeSet<_>>();
                let (one, other) = (pick(one), pick(other));
                prop_assert!(
                    !(read.majority().is_majority(&one) && read.majority().is_majority(&other)),
                    "{:?} and {:?} are both majority sets", one, other
                );
            }
            now = read;
        }
    }
}
