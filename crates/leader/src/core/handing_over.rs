//! Handing the lead over (ADR 0030): to the node that an operator names, or to another one because this one stops.
//!
//! ```text
//!   takes no calls   all that was proposed   the successor has applied    its ballot is promised:
//!   any more, keeps  is issued               all of it, and campaigns     this one is superseded
//!   those that come -----------------------> (failure detectors tell) --------> kept calls go there
//!        |                                        |
//!        +-----------------------  in time? else: takes them up again
//! ```
//!
//! Nothing here is needed for agreement: any node may begin a ballot at any time. It is for the callers, none of whom
//! should notice: nothing is proposed that the next leader would have to decide on, and it has nothing to learn.

use protocol::message::HandOver;
use protocol::{NodeId, Tick};

use super::interface::{Effect, Note};
use super::leading::Leading;
use super::{Leader, Phase, Turn};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct HandingOver {
    pub(super) to: NodeId,
    /// Then it is given up.
    until: Tick,
    /// Why this node then stops leading all the same, if it does.
    or_else: Option<&'static str>,
}

impl Leading {
    /// No call is executed from now on, unless this comes to nothing.
    pub(super) fn hand_over(&mut self, to: NodeId, or_else: Option<&'static str>, turn: &mut Turn<'_>) {
        assert!(self.barrier.is_none(), "ADR 0025: a lead that ends with a change of membership is not handed over");
        assert_ne!(to, turn.config.me, "ADR 0030: to another node");
        let until = turn.world.now.tick + turn.config.hand_over_timeout;
        self.calls.queue_all();
        self.handing_over = Some(HandingOver { to, until, or_else });
        turn.note(Note::HandsOver { ballot: self.ballot, to });
        let last = self.pipeline.last().number;
        turn.effects.push(Effect::HandsOver(Some(HandOver { to, last })));
    }

    /// Nobody tells a leader that it is superseded unless it asks. When the time is up: says why this node is to lead no
    /// more all the same, if it is.
    fn pursue(&mut self, turn: &mut Turn<'_>) -> Option<&'static str> {
        let HandingOver { to, until, or_else } = *self.handing_over.as_ref()?;
        if turn.world.now.tick < until {
            self.rounds.ask();
            return None;
        }
        turn.note(Note::NotHandedOver { ballot: self.ballot, to });
        self.end_hand_over(turn);
        if or_else.is_none() {
            self.take_queued(turn);
        }
        or_else
    }

    pub(super) fn end_hand_over(&mut self, turn: &mut Turn<'_>) {
        if self.handing_over.take().is_some() {
            turn.effects.push(Effect::HandsOver(None));
        }
    }
}

impl Leader {
    /// Another node should lead, if one can; else this one leads on, or stops leading for that reason.
    pub(super) fn on_hand_over(&mut self, or_else: Option<&'static str>, turn: &mut Turn<'_>) {
        if let Phase::Leading(leading) = &mut self.phase
            && leading.barrier.is_none()
            && leading.handing_over.is_none()
            && let Some(to) = leading.able_successor(turn)
        {
            return leading.hand_over(to, or_else, turn);
        }
        if let Some(reason) = or_else {
            self.become_idle(reason, None, turn);
        }
    }

    pub(super) fn pursue_hand_over(&mut self, turn: &mut Turn<'_>) {
        if let Phase::Leading(leading) = &mut self.phase
            && let Some(reason) = leading.pursue(turn)
        {
            self.become_idle(reason, None, turn);
        }
    }
}
