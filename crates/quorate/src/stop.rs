//! When a node is asked to stop: SIGTERM, SIGINT, or, under `dev`, the end of its parent. SIGHUP stops none.

use std::io::Read as _;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Installs the handlers; the future resolves when this process is asked to stop and says by
/// what. To be called on a tokio runtime, before anything that takes long.
///
/// # Errors
/// When the handlers cannot be installed.
pub(crate) fn requested(with_parent: bool) -> anyhow::Result<impl Future<Output = &'static str>> {
    let mut terminate = signal(SignalKind::terminate()).context("no handler for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no handler for SIGINT")?;
    // It would end the process otherwise. Nodes with certificates look at them then.
    drop(signal(SignalKind::hangup()).context("no handler for SIGHUP")?);
    let parent = with_parent.then(end_of_standard_input);
    Ok(async move {
        let parent_is_gone = async {
            match parent {
                Some(gone) => drop(gone.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = parent_is_gone => "the end of the process that started it",
        }
    })
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
