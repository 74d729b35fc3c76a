//! When a node is asked to stop: SIGTERM, SIGINT, or, under `dev`, the end of its parent. SIGHUP stops none, nor does SIGXFSZ.

use std::io::Read as _;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::info;

/// What asks this process to stop.
pub(crate) struct Requests {
    terminate: Signal,
    interrupt: Signal,
    /// Until it has ended.
    parent: Option<oneshot::Receiver<()>>,
}

impl Requests {
    /// Installs the handlers. To be called on a tokio runtime, before anything that takes long.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub(crate) fn new(with_parent: bool) -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("no handler for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("no handler for SIGINT")?;
        // It would end the process otherwise. Nodes with certificates look at them then.
        drop(signal(SignalKind::hangup()).context("no handler for SIGHUP")?);
        // A limit on the size of files would end it without a word. The write fails instead, and the store says so.
        drop(signal(SignalKind::from_raw(nix::libc::SIGXFSZ)).context("no handler for SIGXFSZ")?);
        Ok(Self { terminate, interrupt, parent: with_parent.then(end_of_standard_input) })
    }

    /// Waits until this process is asked to stop, once more if it was asked before; by what.
    pub(crate) async fn next(&mut self) -> &'static str {
        let parent = &mut self.parent;
        let parent_is_gone = async {
            match parent {
                Some(gone) => drop(gone.await),
                None => std::future::pending().await,
            }
            // It ends once.
            *parent = None;
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = parent_is_gone => "the end of the process that started it",
        }
    }

    /// Waits until this process is to stop: it is asked to, and then serves on for `drain`, so that who sends callers here
    /// learns in time to send them elsewhere. To be asked a second time ends that.
    pub(crate) async fn drained(&mut self, drain: Duration, begins: impl FnOnce()) {
        let why = self.next().await;
        if !drain.is_zero() {
            let shown = humantime::format_duration(drain);
            info!(why, drain = %shown, "is to stop: says that it is not ready, and serves on meanwhile");
            begins();
            tokio::select! {
                () = tokio::time::sleep(drain) => {}
                again = self.next() => info!(why = again, "is asked to stop a second time, and does so now"),
            }
        }
        info!(why, "stops: takes no more calls");
    }
}

/// Resolves when whoever holds the other end of standard input is gone, killed or not: the
/// kernel closes its pipes in every case.
#[expect(clippy::disallowed_methods, reason = "a blocking read needs a thread of its own; it ends with the process")]
fn end_of_standard_input() -> oneshot::Receiver<()> {
    let (gone, wait) = oneshot::channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while matches!(std::io::stdin().read(&mut bytes), Ok(1..)) {}
        let _ = gone.send(());
    });
    wait
}
