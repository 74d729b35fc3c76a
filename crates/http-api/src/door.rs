//! Where a call is turned away without asking the gateway, which is on another thread: under overload most calls are, and
//! each must cost as little as possible.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use metrics::Counter;

use crate::meters;

/// See the module. What it says may be a moment old: the gateway still decides on what comes through.
pub struct Door {
    is_shut: AtomicBool,
    /// What callers have sent to the gateway.
    let_in: AtomicU64,
    /// Calls that were turned away, by function.
    refused: BTreeMap<String, Counter>,
    unknown: Counter,
}

impl Door {
    /// An open one, which counts calls of these functions by their names.
    pub(crate) fn new(functions: impl IntoIterator<Item = String>) -> Self {
        let counter = |function: String| meters::calls(function, meters::OVERLOADED);
        let refused = functions.into_iter().map(|name| (name.clone(), counter(name))).collect();
        Self {
            is_shut: AtomicBool::new(false),
            let_in: AtomicU64::new(0),
            refused,
            unknown: counter(meters::UNKNOWN_FUNCTION.to_owned()),
        }
    }

    /// Something of a caller was sent to the gateway.
    pub(crate) fn count(&self) {
        self.let_in.fetch_add(1, Ordering::Relaxed);
    }

    /// How many messages of callers were sent to the gateway.
    pub fn let_in(&self) -> u64 {
        self.let_in.load(Ordering::Relaxed)
    }

    pub(crate) fn shut(&self, is_shut: bool) {
        self.is_shut.store(is_shut, Ordering::Relaxed);
    }

    /// Whether a call of this function may go on to the gateway.
    pub(crate) fn lets_in(&self, function: &str) -> bool {
        let is_shut = self.is_shut.load(Ordering::Relaxed);
        if is_shut {
            self.refused.get(function).unwrap_or(&self.unknown).increment(1);
        }
        !is_shut
    }
}
