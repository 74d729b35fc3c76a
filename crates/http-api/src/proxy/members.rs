//! Whom a gateway passes requests on to: pure.
//!
//! Some members are configured; the others are those that they tell of, at the addresses that these announce to callers.
//! An announced one may not be reachable from here, so it is only one more to try.

use std::collections::BTreeSet;

/// How a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// It is ready.
    Ready,
    /// It answers, and is not ready.
    Answers,
    /// Nobody knows yet.
    Unknown,
    /// It wants another token than this gateway has. Whether it is ready is not known; callers have tokens of their own.
    Denied,
    /// It does not answer.
    Gone,
    /// It belongs to another cluster, or is no gateway: nothing is passed on to it.
    Foreign,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    /// `host:port` of its REST.
    address: String,
    is_configured: bool,
    /// What it calls itself, once it has answered.
    name: Option<String>,
    state: State,
    /// Why it does not answer.
    why: String,
}

/// What came of looking at a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// No answer, or none of a node; why.
    Silent(String),
    /// It belongs to another cluster, or is no gateway.
    Foreign,
    /// It wants another token.
    Denied,
    /// It says that it cannot answer now.
    Unable,
    /// It answers.
    Word(Word),
}

/// What a member says of itself and the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// Its name.
    pub(crate) name: String,
    /// Whether it is ready.
    pub(crate) ready: bool,
    /// The name of the leader, as it knows it.
    pub(crate) leader: Option<String>,
    /// The names of all members, and where they announce their REST.
    pub(crate) members: Vec<(String, String)>,
}

impl Member {
    fn new(address: &str, is_configured: bool) -> Self {
        let (address, why) = (address.to_owned(), String::new());
        Self { address, is_configured, name: None, state: State::Unknown, why }
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Members {
    all: Vec<Member>,
    leader: Option<String>,
}

impl Members {
    /// Those that are configured.
    pub(crate) fn new(configured: &[String]) -> Self {
        Self { all: configured.iter().map(|address| Member::new(address, true)).collect(), leader: None }
    }

    /// All addresses to look at.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.all.iter().map(|member| member.address.clone()).collect()
    }

    /// What came of looking at all of them.
    pub(crate) fn looked(&mut self, seen: Vec<(String, Seen)>) {
        let mut announced: Option<Vec<(String, String)>> = None;
        self.leader = None;
        for (address, seen) in seen {
            let Some(member) = self.all.iter_mut().find(|member| member.address == address) else { continue };
            let word = match seen {
                Seen::Word(word) => word,
                Seen::Silent(why) => {
                    (member.state, member.why) = (State::Gone, why);
                    continue;
                }
                Seen::Foreign | Seen::Denied | Seen::Unable => {
                    member.state = match seen {
                        Seen::Foreign => State::Foreign,
                        Seen::Denied => State::Denied,
                        Seen::Unable | Seen::Silent(_) | Seen::Word(_) => State::Answers,
                    };
                    continue;
                }
            };
            member.name = Some(word.name);
            member.state = if word.ready { State::Ready } else { State::Answers };
            if word.ready {
                self.leader = word.leader.or(self.leader.take());
                announced = Some(word.members);
            }
        }
        if let Some(announced) = announced {
            self.announced(&announced);
        }
    }

    /// A ready member told of these. Those that answer at a configured address are not added at another one.
    fn announced(&mut self, members: &[(String, String)]) {
        self.all.retain(|known| known.is_configured || members.iter().any(|(_, address)| *address == known.address));
        let configured = self.all.iter().filter(|member| member.is_configured);
        let named: BTreeSet<String> = configured.filter_map(|member| member.name.clone()).collect();
        self.all.retain(|known| known.is_configured || known.name.as_ref().is_none_or(|name| !named.contains(name)));
        for (name, address) in members {
            let is_known = named.contains(name) || self.all.iter().any(|member| member.address == *address);
            if !is_known && !address.is_empty() {
                self.all.push(Member::new(address, false));
            }
        }
    }

    /// A connection to it was refused, or broke.
    pub(crate) fn failed(&mut self, address: &str) {
        if let Some(member) = self.all.iter_mut().find(|member| member.address == address) {
            (member.state, member.why) = (State::Gone, "a connection was refused, or broke".to_owned());
        }
    }

    /// It says that it belongs to another cluster, or is no gateway.
    pub(crate) fn misdirected(&mut self, address: &str) {
        if let Some(member) = self.all.iter_mut().find(|member| member.address == address) {
            member.state = State::Foreign;
        }
    }

    /// Whether it has stopped answering.
    pub(crate) fn is_gone(&self, address: &str) -> bool {
        self.all.iter().any(|member| member.address == address && member.state == State::Gone)
    }

    /// Whether it answers and cannot serve, as one that is cut off from the others, while another one can.
    pub(crate) fn is_worse_off(&self, address: &str) -> bool {
        let answers = |member: &Member| member.address == address && member.state == State::Answers;
        self.ready() > 0 && self.all.iter().any(answers)
    }

    /// Whether it is known to want another token.
    pub(crate) fn is_denied(&self, address: &str) -> bool {
        self.all.iter().any(|member| member.address == address && member.state == State::Denied)
    }

    /// Whether it is known to belong to another cluster, or to be no gateway.
    pub(crate) fn is_foreign(&self, address: &str) -> bool {
        self.all.iter().any(|member| member.address == address && member.state == State::Foreign)
    }

    /// Whether some member is ready.
    pub(crate) fn ready(&self) -> usize {
        self.all.iter().filter(|member| member.state == State::Ready).count()
    }

    /// Whom to ask, in this order: who is ready, the leader before the others if it is a call, and those in turn.
    pub(crate) fn order(&self, is_call: bool, turn: usize) -> Vec<String> {
        let count = self.all.len().max(1);
        let leads = |member: &Member| is_call && member.name.is_some() && member.name == self.leader;
        let asked = |(_, member): &(usize, &Member)| member.state != State::Foreign;
        let mut order: Vec<(usize, &Member)> = self.all.iter().enumerate().filter(asked).collect();
        order.sort_by_key(|(index, member)| (member.state, !leads(member), (index + count - turn % count) % count));
        order.into_iter().map(|(_, member)| member.address.clone()).collect()
    }

    /// For people: each member and how it is.
    pub(crate) fn describe(&self) -> String {
        let word = |member: &Member| match member.state {
            State::Ready => "ready".to_owned(),
            State::Answers => "not ready".to_owned(),
            State::Unknown => "not asked yet".to_owned(),
            State::Denied => "wants another token, see gateway.token_file".to_owned(),
            State::Gone => format!("no answer: {}", member.why),
            State::Foreign => "of another cluster, see cluster.name, or without the role gateway".to_owned(),
        };
        let member = |member: &Member| {
            format!("{} {} ({})", member.name.as_deref().unwrap_or("?"), member.address, word(member))
        };
        self.all.iter().map(member).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Members {
        Members::new(&["a:1".to_owned(), "b:1".to_owned()])
    }

    fn word(name: &str, ready: bool, members: &[(&str, &str)]) -> Seen {
        let members = members.iter().map(|(name, address)| ((*name).to_owned(), (*address).to_owned())).collect();
        Seen::Word(Word { name: name.to_owned(), ready, leader: Some("b".to_owned()), members })
    }

    fn looked(members: &mut Members, seen: &[(&str, Seen)]) {
        members.looked(seen.iter().map(|(address, seen)| ((*address).to_owned(), seen.clone())).collect());
    }

    fn none() -> Seen {
        Seen::Silent("refused".to_owned())
    }

    const ALL: [(&str, &str); 3] = [("a", "10.0.0.1:8080"), ("b", "10.0.0.2:8080"), ("c", "10.0.0.3:8080")];

    /// Catches a request that goes to a member which cannot serve it while another one can, calls that do not go to the
    /// leader, and members of which one gets all the reads.
    #[test]
    fn who_can_serve_is_asked_first() {
        let mut members = members();
        assert_eq!(members.order(false, 0), ["a:1", "b:1"]);
        assert_eq!(members.order(false, 1), ["b:1", "a:1"]);
        looked(&mut members, &[("a:1", word("a", true, &ALL)), ("b:1", word("b", true, &ALL))]);
        assert_eq!(
            (members.ready(), members.order(true, 0)),
            (2, vec!["b:1".into(), "a:1".into(), "10.0.0.3:8080".into()])
        );
        let firsts: BTreeSet<String> = (0..4).map(|turn| members.order(false, turn).remove(0)).collect();
        assert_eq!(firsts.len(), 2);
        looked(
            &mut members,
            &[("a:1", word("a", false, &ALL)), ("b:1", none()), ("10.0.0.3:8080", word("c", true, &ALL))],
        );
        assert_eq!(members.order(true, 1), ["10.0.0.3:8080", "a:1", "b:1"]);
        assert!(members.is_gone("b:1") && !members.is_gone("a:1"));
        let worse_off = ["a:1", "b:1", "10.0.0.3:8080"].map(|address| members.is_worse_off(address));
        assert_eq!(worse_off, [true, false, false]);
        members.failed("10.0.0.3:8080");
        assert_eq!(members.order(true, 1)[0], "a:1");
        assert!(!members.is_worse_off("a:1"), "nobody is better off");
    }

    /// Catches a call that is executed by another cluster, because nobody else answers.
    #[test]
    fn another_cluster_is_not_asked() {
        let mut members = members();
        looked(&mut members, &[("a:1", Seen::Foreign), ("b:1", none())]);
        assert_eq!(members.order(true, 0), ["b:1"]);
        assert!(members.is_foreign("a:1") && members.describe().contains("another cluster"));
        members.misdirected("b:1");
        assert!(members.order(true, 0).is_empty(), "both said so");
        looked(&mut members, &[("a:1", word("a", true, &ALL)), ("b:1", none())]);
        assert_eq!(members.order(true, 0)[0], "a:1", "it was set up anew");
    }

    /// Catches a gateway without the token of its members that says it is ready, takes them for another cluster's, or asks
    /// nobody for callers who have tokens of their own; and one that does not say what it lacks.
    #[test]
    fn who_wants_another_token_is_asked_for_callers_all_the_same() {
        let mut members = members();
        looked(&mut members, &[("a:1", Seen::Denied), ("b:1", none())]);
        assert!(members.is_denied("a:1") && members.ready() == 0 && !members.is_foreign("a:1"));
        assert_eq!(members.order(true, 1), ["a:1", "b:1"]);
        let said = members.describe();
        assert!(said.contains("gateway.token_file") && said.contains("no answer: refused"), "{said}");
        looked(&mut members, &[("a:1", Seen::Denied), ("b:1", Seen::Unable)]);
        assert_eq!(members.order(true, 0), ["b:1", "a:1"]);
        looked(&mut members, &[("a:1", word("a", true, &ALL)), ("b:1", Seen::Unable)]);
        assert_eq!((members.order(true, 1)[0].as_str(), members.is_denied("a:1")), ("a:1", false));
    }

    /// Catches a member that joined and is never asked, one that is asked twice under two addresses, and one that was
    /// removed and is asked for ever.
    #[test]
    fn the_members_tell_of_each_other() {
        let mut members = members();
        looked(&mut members, &[("a:1", word("a", true, &ALL)), ("b:1", none())]);
        assert_eq!(members.addresses(), ["a:1", "b:1", "10.0.0.2:8080", "10.0.0.3:8080"], "nobody knows who b:1 is");
        looked(&mut members, &[("a:1", word("a", true, &ALL)), ("b:1", word("b", true, &ALL))]);
        assert_eq!(members.addresses(), ["a:1", "b:1", "10.0.0.2:8080", "10.0.0.3:8080"]);
        looked(&mut members, &[("a:1", word("a", true, &ALL)), ("10.0.0.2:8080", word("b", true, &ALL))]);
        assert_eq!(members.addresses(), ["a:1", "b:1", "10.0.0.3:8080"], "it is b under two addresses");
        looked(&mut members, &[("a:1", word("a", true, &ALL[..2])), ("b:1", word("b", true, &ALL[..2]))]);
        assert_eq!(members.addresses(), ["a:1", "b:1"]);
    }
}
