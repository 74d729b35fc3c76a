//! At most one command for a request (DESIGN 14.9, RELIABILITY 3.9).

use protocol::Now;

use super::{History, Invariant, Violation, ensure};
use crate::fact::Fact;

/// See the module.
pub(super) struct OneEffect;

impl Invariant for OneEffect {
    fn name(&self) -> &'static str {
        "one effect"
    }

    fn check(&mut self, _: Now, _: &Fact, history: &History) -> Result<(), Violation> {
        let Some(issued) = history.chain.fresh() else { return Ok(()) };
        let number = issued.command.number();
        let first = history.chain.number_of(&issued.body.request);
        ensure(first == Some(number), || {
            let first = first.unwrap_or_default();
            format!("the request {} has a second command, {}, after {first}", issued.body.request, issued.command.id)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

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
