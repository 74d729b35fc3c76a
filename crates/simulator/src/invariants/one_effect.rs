//! At most one command for a request (DESIGN 14.9, RELIABILITY 3.9): for ever where a gateway has named it, which sends no
//! copy for as long as outcomes are kept; under a caller's key as long as its outcome is stored (ADR 0006). And none is
//! forgotten before its time, by the times that the commands have, which are right but for what clocks are wrong.

use protocol::{Now, RequestId};

use super::{History, Invariant, Violation, ensure};
use crate::fact::Fact;

/// See the module.
pub(super) struct OneEffect;

impl Invariant for OneEffect {
    fn name(&self) -> &'static str {
        "one effect"
    }

    fn check(&mut self, now: Now, _: &Fact, history: &History) -> Result<(), Violation> {
        let Some(issued) = history.chain.fresh() else { return Ok(()) };
        let (number, id, body) = (issued.command.number(), issued.command.id, &issued.body);
        let earlier = match body.request {
            RequestId::Caller(_) => history.chain.repeats(),
            RequestId::Gateway(_) => history.chain.number_of(&body.request).filter(|first| *first != number),
        };
        ensure(earlier.is_none(), || {
            let first = earlier.unwrap_or_default();
            format!("the request {} has a second command, {id}, after {first}", body.request)
        })?;
        let Some(kept) = &history.kept else { return Ok(()) };
        let early = body.time.minus(kept.wrong_max);
        ensure(early <= now.wall, || {
            format!("{id} is of {:?}, and no clock shows more than {:?}", body.time, now.wall)
        })?;
        let marks = [body.forget.callers, body.forget.gateways];
        let due = [kept.callers, kept.gateways].map(|kept| body.time.minus(kept));
        ensure(marks.iter().zip(&due).all(|(mark, due)| mark <= due), || {
            format!("{id} makes forget what is before {marks:?}, and may what is before {due:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protocol::{CommandBody, Forget, Tick, Timestamp};

    use super::super::{Kept, testing::*};
    use super::*;

    /// Bodies at these times, which make forget what is before these.
    fn bodies(of: &[(RequestId, u64, u64)]) -> Vec<Fact> {
        let body = |(request, time, forget): &(RequestId, u64, u64)| CommandBody {
            request: request.clone(),
            time: Timestamp(*time),
            forget: Forget { callers: Timestamp(*forget), gateways: Timestamp(*forget) },
            ..body("r", vec![put("a", "1")])
        };
        let bodies: Vec<CommandBody> = of.iter().map(body).collect();
        chain_of(&bodies).iter().map(|command| applied(1, command)).collect()
    }

    /// S-23, ADR 0006: catches a call under a caller's key that becomes a second command while its outcome is stored, and is
    /// held against the cluster afterwards; and one that a gateway has named and that ever becomes a second one.
    #[test]
    fn a_request_is_new_once_its_outcome_is_forgotten() {
        let caller = |name: &str| RequestId::caller(name).expect("a short name");
        let again = |request: RequestId, forget| {
            run(OneEffect, &bodies(&[(request.clone(), 1, 0), (caller("r2"), 5, forget), (request, 6, 0)]))
        };
        assert_eq!(again(caller("r1"), 2), Ok(()));
        assert_fails(again(caller("r1"), 1), "second command, 3@1.1, after 1");
        assert_fails(again(RequestId::Gateway(1), 2), "second command, 3@1.1, after 1");
        // What a command makes forget is forgotten after it was decided on.
        let at_once = bodies(&[(caller("r1"), 1, 0), (caller("r1"), 6, 2)]);
        assert_fails(run(OneEffect, &at_once), "second command, 2@1.1, after 1");
    }

    /// ADR 0006: catches outcomes that are forgotten before their time, and a leader whose time lies ahead of all clocks.
    #[test]
    fn outcomes_are_kept_for_their_time() {
        let caller = |name: &str| RequestId::caller(name).expect("a short name");
        let kept = |forget, time| {
            let millis = Duration::from_millis;
            let mut history = History::new(&three());
            let (callers, gateways) = (millis(10), millis(20));
            history.kept = Some(Kept { callers, gateways, wrong_max: millis(5) });
            let now = Now { tick: Tick(1), wall: Timestamp(100) };
            bodies(&[(caller("r1"), time, forget)]).iter().try_for_each(|fact| {
                history.learn(now, fact)?;
                OneEffect.check(now, fact, &history)
            })
        };
        assert_eq!(kept(80, 100), Ok(()));
        assert_fails(kept(81, 100), "makes forget");
        assert_eq!(kept(0, 105), Ok(()));
        assert_fails(kept(0, 106), "no clock shows more");
    }

    /// S-23: catches a repeated call that is executed twice.
    #[test]
    fn a_request_has_one_command() {
        let of = |requests: [&str; 2]| {
            let commands = chain_of(&requests.map(|request| body(request, vec![put("a", "1")])));
            run(OneEffect, &[applied(1, &commands[0]), applied(2, &commands[0]), applied(1, &commands[1])])
        };
        assert_eq!(of(["r1", "r2"]), Ok(()));
        assert_fails(of(["r1", "r1"]), "second command");
    }
}
