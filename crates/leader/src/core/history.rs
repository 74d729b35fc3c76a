//! InitHistProc: which commands of earlier ballots a new leader must propose again.
//!
//! From the lowest number that is not known to be issued, upward: first *drop* the votes whose
//! precedent is not the command issued at, or chosen for, the number before; then take the
//! highest ballot of the rest; stop at the first number without one (patent step 3; condition
//! B3(I,β); S-02). The order of the two matters: in FIG. 6, ballot 43 must propose c', voted in
//! ballot 29, and not c, voted in ballot 32, because c depends on b and b' was issued.

use std::collections::BTreeMap;

use protocol::{Command, CommandId, CommandNumber, Vote};

/// The initial history H above `issued`, the last command known to be issued: consecutive
/// commands, each the precedent of the next, the first one following `issued`.
///
/// `votes` are the most recent votes of a majority set, in any order, for any numbers; more
/// than one for a number.
#[must_use]
pub fn initial_history<'a>(issued: CommandId, votes: impl IntoIterator<Item = &'a Vote>) -> Vec<Command> {
    let mut by_number: BTreeMap<CommandNumber, Vec<&Vote>> = BTreeMap::new();
    for vote in votes {
        by_number.entry(vote.command.number()).or_default().push(vote);
    }
    let mut history = Vec::new();
    let mut precedent = issued;
    while let Some(candidates) = by_number.get(&precedent.number.next()) {
        let dependent = candidates.iter().filter(|vote| vote.command.follows(precedent));
        // Equal ballots hold equal commands (B1), so that any of them will do.
        let Some(chosen) = dependent.max_by_key(|vote| (vote.ballot, vote.command.id)) else { break };
        precedent = chosen.command.id;
        history.push(chosen.command.clone());
    }
    history
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use protocol::{Ballot, NodeId};

    use super::*;

    /// A ballot of the figures. Which node owns it does not matter to the choice.
    fn ballot(round: u64) -> Ballot {
        Ballot::new(round, NodeId(1))
    }

    /// The command first proposed for `number` in ballot `round`, after `precedent`.
    fn command(number: u64, round: u64, precedent: CommandId) -> Command {
        Command { id: CommandId::new(ballot(round), CommandNumber(number)), precedent, body: Bytes::new() }
    }

    fn vote(round: u64, command: &Command) -> Vote {
        Vote { ballot: ballot(round), command: command.clone() }
    }

    /// What the devices of a figure have voted, row by row.
    #[derive(Default)]
    struct Figure {
        votes: BTreeMap<(char, CommandNumber), Vote>,
        issued: CommandId,
    }

    impl Figure {
        /// The command that a leader must choose for `number`, given this majority set.
        fn required(&self, number: u64, quorum: &str) -> Option<Command> {
            let known = self.votes.iter().filter(|((device, _), _)| quorum.contains(*device));
            initial_history(self.issued, known.map(|(_, vote)| vote))
                .into_iter()
                .find(|command| command.number() == CommandNumber(number))
        }

        fn cast(&mut self, round: u64, voters: &str, command: &Command) {
            for device in voters.chars() {
                self.votes.insert((device, command.number()), vote(round, command));
            }
        }
    }

    /// A8: FIG. 5 row by row, under B3 for a single command number. Catches a choice by
    /// majority or by first vote instead of by the latest ballot.
    #[test]
    fn figure_5_row_by_row() {
        let (a, b) = (command(1, 2, CommandId::NULL), command(1, 5, CommandId::NULL));
        let mut figure = Figure::default();
        assert_eq!(figure.required(1, "ABCD"), None, "#2: free");
        figure.cast(2, "D", &a);
        assert_eq!(figure.required(1, "ABCE"), None, "#5: free");
        figure.cast(5, "C", &b);
        assert_eq!(figure.required(1, "BDE"), Some(a.clone()), "#14: D voted in #2");
        figure.cast(14, "BE", &a);
        assert_eq!(figure.required(1, "ACD"), Some(b.clone()), "#27: C voted in #5, later than D in #2");
        figure.cast(27, "ACD", &b);
        assert_eq!(figure.required(1, "BCD"), Some(b), "#29: #27 is later than B's #14");
    }

    /// A1r, A1s, S-02: FIG. 6 row by row, its votes taken as given. Catches the maximum being
    /// taken before the filter (ballot 43 would pick c) and dependence on payloads.
    #[test]
    fn figure_6_row_by_row() {
        let a = command(1, 1, CommandId::NULL);
        let (b, b2) = (command(2, 2, a.id), command(2, 5, a.id));
        let (c, c2) = (command(3, 27, b.id), command(3, 29, b2.id));
        let mut figure = Figure { issued: a.id, ..Figure::default() };
        assert_eq!(figure.required(2, "ACD"), None, "#2: free");
        figure.cast(2, "D", &b);
        assert_eq!(figure.required(2, "BCE"), None, "#5: free");
        figure.cast(5, "E", &b2);
        assert_eq!(figure.required(2, "ABD"), Some(b.clone()), "#14: D voted for b in #2");
        // The figure boxes no voters of ballot 14 but D: the text says only whom it binds.
        figure.cast(14, "D", &b);
        assert_eq!(figure.required(3, "ACD"), None, "#27: nobody voted for n yet");
        figure.cast(27, "AD", &c);
        assert_eq!(figure.required(3, "BCE"), None, "#29: none of B, C, E voted for n");
        figure.cast(29, "E", &c2);
        assert_eq!(
            figure.required(3, "ABD"),
            Some(c.clone()),
            "#32: A and D voted for c in #27, and b is chosen before it"
        );
        figure.cast(32, "D", &c);
        assert_eq!(figure.required(2, "BCE"), Some(b2.clone()), "#36: E voted for b' in #5");
        figure.cast(36, "BCE", &b2);
        figure.issued = b2.id;
        assert_eq!(figure.required(3, "BCDE"), Some(c2.clone()), "#43: c' of #29, not c of the later #32");
        figure.cast(43, "BCDE", &c2);
        let at_m = |figure: &Figure, quorum| Figure { votes: figure.votes.clone(), issued: a.id }.required(2, quorum);
        assert_eq!(at_m(&figure, "ACD"), Some(b2), "#51: C voted for b' in #36");
        assert_eq!(figure.required(3, "ACE"), Some(c2), "#54: C and E voted for c' in #43");
    }

    /// S-01, the choice: after the second ballot overwrote a vote, a command without its
    /// precedent among the votes is not taken up. Catches a history that jumps a number.
    #[test]
    fn a_hole_ends_the_history() {
        let b2 = command(1, 1, CommandId::NULL);
        let c2 = command(2, 1, b2.id);
        assert_eq!(initial_history(CommandId::NULL, [&vote(1, &c2)]), Vec::new());
        assert_eq!(initial_history(CommandId::NULL, [&vote(1, &c2), &vote(1, &b2)]), vec![b2, c2]);
    }

    /// PAXOS-RUN-27, S-05: P3 finds C in a later ballot at 1 and B, which depends on A, at 2.
    /// Catches B being chosen without A.
    #[test]
    fn run_27_never_chooses_a_command_without_its_precedent() {
        let a = command(1, 27, CommandId::NULL);
        let b = command(2, 27, a.id);
        let c = command(1, 28, CommandId::NULL);
        // Acceptor 1 voted for A and B; acceptors 2 and 3 voted for C in a later ballot.
        let known = [vote(27, &a), vote(27, &b), vote(28, &c)];
        assert_eq!(initial_history(CommandId::NULL, &known), vec![c]);
    }

    /// S-03: two commands of equal content at one number are told apart. Catches comparison by
    /// number or by payload.
    #[test]
    fn precedents_are_compared_by_identity() {
        let (left, right) = (command(1, 1, CommandId::NULL), command(1, 2, CommandId::NULL));
        let next = command(2, 1, left.id);
        assert_eq!(left.body, right.body);
        let known = [vote(1, &left), vote(2, &right), vote(1, &next)];
        assert_eq!(initial_history(CommandId::NULL, &known), vec![right]);
    }
}
