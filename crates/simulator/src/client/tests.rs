use protocol::CommandNumber;

use super::*;
use crate::fact::{Consistency, Read, Seen, Sought};

fn settings(clients: u64) -> Settings {
    Settings {
        nodes: (1..=5).map(NodeId).collect(),
        clients,
        pause: Duration::from_millis(10),
        wait: Duration::from_millis(100),
        wait_healed: Duration::from_secs(1),
        keyed: 600,
        reads: 300,
        changes: 0,
        changing: Tick(u64::MAX),
        hand_overs: 0,
        repeated: 20,
        fresh: 2,
    }
}

/// Moves clients on: each question is answered a millisecond later as `answer` says, or never.
fn play(clients: &mut Clients, until: u64, mut answer: impl FnMut(&Asking) -> Option<Told>) -> Vec<(Tick, Act)> {
    let mut acts = Vec::new();
    let mut answers = BTreeMap::new();
    loop {
        let due = clients.due().into_iter().chain(answers.keys().next().map(|(at, _)| *at)).min();
        let Some(now) = due.filter(|now| now.0 < until) else { return acts };
        while let Some(entry) = answers.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, ticket), told) = entry.remove_entry();
            clients.told(now, ticket, &told);
        }
        while let Some(act) = clients.next(now) {
            if let Act::Ask(asking) = &act
                && let Some(told) = answer(asking)
            {
                answers.insert((now + Duration::from_millis(1), asking.ticket), told);
            }
            acts.push((now, act));
        }
    }
}

/// What a good cluster answers.
fn well(asking: &Asking) -> Option<Told> {
    Some(match &asking.question {
        Question::Call(call) => {
            let outcome = Outcome::Issued { command: CommandNumber(1), result: "{}".into() };
            Told::Outcome { request: call.request.clone(), outcome, settled: true }
        }
        Question::Read(_) => Told::Shown { at: CommandNumber(1), seen: Seen::Entries(Vec::new()) },
    })
}

fn asked(acts: &[(Tick, Act)]) -> Vec<&Asking> {
    acts.iter().filter_map(|(_, act)| if let Act::Ask(asking) = act { Some(asking) } else { None }).collect()
}

fn call_of(asking: &Asking) -> Option<&Call> {
    if let Question::Call(call) = &asking.question { Some(call) } else { None }
}

/// Catches clients that differ from run to run, or do not differ from seed to seed.
#[test]
fn a_seed_decides_what_clients_do() {
    let play = |seed| play(&mut Clients::new(settings(4), seed, Tick(0)), 2_000_000, well);
    assert_eq!(play(1), play(1));
    assert_ne!(play(1), play(2));
}

/// Catches a kind of question that is never asked: of calls with and without a key, and of each consistency of
/// reads; and a client with two questions at a time, or a ticket used twice.
#[test]
fn every_kind_of_question_is_asked() {
    let acts = play(&mut Clients::new(settings(4), 7, Tick(0)), 10_000_000, well);
    let asked = asked(&acts);
    let functions: BTreeSet<&str> =
        asked.iter().filter_map(|ask| call_of(ask)).map(|call| call.function.as_str()).collect();
    let all = crate::functions::all();
    // Those about the cluster have seeds of their own; those about tokens write entries like any other.
    let others = ["cluster.", "auth."];
    let names = all.iter().map(|function| function.name());
    for name in names.filter(|name| !others.iter().any(|other| name.starts_with(other))) {
        assert!(functions.contains(name), "{name} is never called");
    }
    let reads = asked.iter().filter_map(|ask| read_of(ask));
    let kinds: BTreeSet<_> = reads
        .map(|read| {
            let sought = match read.sought {
                Sought::Entry(_) => 0,
                Sought::Page { .. } => 1,
                Sought::Call(_) => 2,
                Sought::Commands { .. } => 3,
            };
            (sought, read.consistency == Consistency::Local, read.least.0.min(2))
        })
        .collect();
    assert_eq!(kinds.len(), 4 * 2 * 3, "with no number, with one that was seen, and with one that was not");
    assert!(asked.iter().filter_map(|ask| call_of(ask)).any(is_keyed));
    assert!(asked.iter().filter_map(|ask| call_of(ask)).any(|call| !is_keyed(call)));
    assert!(asked.iter().filter_map(|ask| call_of(ask)).any(|call| !call.patience.is_zero()));
    let tickets: BTreeSet<u64> = asked.iter().map(|ask| ask.ticket).collect();
    assert_eq!(tickets.len(), asked.len());
}

fn read_of(asking: &Asking) -> Option<&Read> {
    if let Question::Read(read) = &asking.question { Some(read) } else { None }
}

/// S-23: catches a call with a key that is given up or asked for with another key, one without a key that is asked
/// again, and retries that all go to one node or all with the same body.
#[test]
fn a_call_with_a_key_is_asked_until_it_is_known() {
    let acts = play(&mut Clients::new(settings(1), 3, Tick(0)), 60_000_000, |_| Some(Told::Unknown));
    let asked = asked(&acts);
    let calls: Vec<&Call> = asked.iter().filter_map(|ask| call_of(ask)).collect();
    let last = calls.last().expect("it asks");
    assert!(is_keyed(last), "with a key, there is no end to it");
    let own: Vec<_> =
        asked.iter().filter(|ask| call_of(ask).is_some_and(|call| call.request == last.request)).collect();
    assert!(own.len() > 100, "{} times in a minute", own.len());
    assert!(own.iter().map(|ask| ask.via).collect::<BTreeSet<_>>().len() == 5);
    let first = call_of(own[0]).expect("a call");
    let others = own.iter().filter(|ask| call_of(ask) != Some(first)).count();
    assert!(others > 0 && others * 4 < own.len(), "{others} of {} with another body", own.len());
    let unkeyed: Vec<_> = calls.iter().filter(|call| !is_keyed(call)).map(|call| &call.request).collect();
    assert_eq!(unkeyed.iter().collect::<BTreeSet<_>>().len(), unkeyed.len(), "one question each");
}

/// S-22: catches a call that is dropped on an answer which is not final, or kept on one that is.
#[test]
fn an_unsettled_refusal_is_not_final() {
    let refused = |settled| {
        let outcome = Outcome::Overloaded;
        Told::Outcome { request: RequestId::Gateway(1), outcome, settled }
    };
    assert!(is_final(&refused(true)) && is_final(&Told::NotExecuted));
    assert!(!is_final(&refused(false)) && !is_final(&Told::Unknown));
}

/// Catches clients that wait for ever: without an answer they go away, and nothing is told to them then.
#[test]
fn a_client_goes_away_in_the_end() {
    let mut clients = Clients::new(settings(1), 5, Tick(0));
    let acts = play(&mut clients, 20_000_000, |_| None);
    let away = acts.iter().filter(|(_, act)| matches!(act, Act::GoAway { .. })).count();
    assert!(away > 5 && away >= asked(&acts).len() - 1, "{away} of {}", acts.len());
    let due = clients.due();
    let Some((_, Act::Ask(first))) = acts.first() else { panic!("it asks first") };
    clients.told(Tick(20_000_000), first.ticket, &Told::NotExecuted);
    assert_eq!(clients.due(), due, "it has gone away long ago");
}

/// A13: catches clients that ask outside the core after the faults, that stay with a node of the core which does not
/// answer, that are never done, or done before their fresh calls are issued and they have read.
#[test]
fn after_the_faults_all_comes_to_its_end() {
    let mut clients = Clients::new(settings(3), 11, Tick(0));
    play(&mut clients, 1_000_000, |_| None);
    assert!(!clients.done());
    let core = [NodeId(2), NodeId(4)];
    clients.healed(Tick(1_000_000), &core);
    let acts =
        play(&mut clients, 60_000_000, |asking| if asking.via == core[0] { Some(Told::Unknown) } else { well(asking) });
    assert!(clients.done());
    let asked = asked(&acts);
    assert!(asked.iter().all(|ask| core.contains(&ask.via)));
    let issued: BTreeSet<&RequestId> = asked
        .iter()
        .filter(|ask| ask.via == core[1])
        .filter_map(|ask| call_of(ask))
        .map(|call| &call.request)
        .collect();
    assert!(issued.len() >= 3 * 2, "{} calls are issued", issued.len());
    let mut last = BTreeMap::new();
    asked.iter().for_each(|ask| _ = last.insert(ask.client, *ask));
    assert_eq!(last.len(), 3);
    let reads = |ask: &Asking| read_of(ask).is_some_and(|read| read.consistency == Consistency::Linearizable);
    assert!(last.values().all(|ask| ask.via == core[1] && reads(ask)), "{last:?}");
}

/// Catches clients that go on asking for changes of the membership when that is to be over, or never do.
#[test]
fn changes_are_asked_for_until_their_time_is_over() {
    let over = Tick(500_000);
    let settings = Settings { changes: 1_000, reads: 0, changing: over, ..settings(3) };
    let mut clients = Clients::new(settings, 1, Tick(0));
    let acts = play(&mut clients, 1_000_000, well);
    let mut of_changes = [0, 0];
    for (at, act) in &acts {
        let Act::Ask(asking) = act else { continue };
        let changes = call_of(asking).is_some_and(|call| call.function.starts_with("cluster."));
        // What was asked before may be repeated once.
        of_changes[usize::from(*at > over + Duration::from_millis(50))] += usize::from(changes);
    }
    assert!(of_changes[0] > 50 && of_changes[1] == 0, "{of_changes:?}");
    assert!(!clients.may_change());
}

/// A13: catches a client that gives a read up after the faults, as the cluster may then never answer it: whether that was asked
/// before, or the node left it without an answer.
#[test]
fn after_the_faults_a_read_goes_on_until_it_shows_something() {
    for answer in [Some(Told::NotExecuted), Some(Told::Unknown), None] {
        let mut clients = Clients::new(Settings { reads: 1_000, ..settings(3) }, 11, Tick(0));
        let before = play(&mut clients, 100_000, |_| answer.clone());
        assert!(!before.is_empty());
        clients.healed(Tick(100_000), &[NodeId(1), NodeId(2)]);
        let acts = play(&mut clients, 20_000_000, |_| answer.clone());
        let asked = asked(&acts);
        assert!(asked.len() > 9, "{answer:?}: {}", asked.len());
        assert!(asked.iter().all(|ask| read_of(ask).is_some()), "{answer:?}");
        play(&mut clients, 60_000_000, well);
        assert!(clients.done(), "{answer:?}");
    }
}
