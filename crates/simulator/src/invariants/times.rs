//! The times of commands never go back along the chain, whatever the clocks of their leaders show (DESIGN 12): so a state
//! at a time is one, and what is kept for a time is kept that long.

use protocol::{Now, Timestamp};

use super::{History, Invariant, Violation, ensure};
use crate::fact::Fact;

/// See the module.
#[derive(Default)]
pub(super) struct Times {
    /// That of the last issued command.
    last: Timestamp,
}

impl Invariant for Times {
    fn name(&self) -> &'static str {
        "times"
    }

    fn check(&mut self, _: Now, _: &Fact, history: &History) -> Result<(), Violation> {
        let Some(issued) = history.chain.fresh() else { return Ok(()) };
        let before = std::mem::replace(&mut self.last, issued.body.time);
        ensure(self.last >= before, || {
            format!("{} is of {} ms, and the command before it of {} ms", issued.command.id, self.last.0, before.0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    /// DESIGN 12: catches a leader that goes by its own clock, which is behind that of the one before.
    #[test]
    fn times_do_not_go_back() {
        let of = |times: [u64; 3]| {
            let bodies = times.map(|time| {
                let mut body = body(&format!("r{time}"), vec![put("a", "1")]);
                body.time = Timestamp(time);
                body
            });
            let commands = chain_of(&bodies);
            run(Times::default(), &commands.iter().map(|command| applied(1, command)).collect::<Vec<_>>())
        };
        assert_eq!(of([5, 5, 6]), Ok(()));
        assert_fails(of([5, 7, 6]), "3@1.1 is of 6 ms, and the command before it of 7 ms");
    }
}
