//! Threads with names, so that `top -H`, `perf` and a debugger tell the roles apart.

use std::ffi::CStr;

use actix::Arbiter;

/// A thread for actors. Of the name the kernel keeps the first 15 bytes.
pub(crate) fn named(name: &'static CStr) -> Arbiter {
    let thread = Arbiter::new();
    thread.spawn_fn(move || {
        #[cfg(target_os = "linux")]
        if let Err(error) = nix::sys::prctl::set_name(name) {
            tracing::debug!(%error, ?name, "a thread keeps the name that it has");
        }
        #[cfg(not(target_os = "linux"))]
        let _no_way_to_say_it = name;
    });
    thread
}
