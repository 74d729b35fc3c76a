//! Files that hold a secret.

use std::path::Path;

use zeroize::Zeroizing;

use crate::certificates::check_mode;

/// The secret of a file. What was read does not stay in memory when it is needed no more.
///
/// # Errors
/// Why it is not usable; the secret is not repeated.
pub(crate) fn read(file: &Path) -> Result<Zeroizing<String>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"));
    let text = Zeroizing::new(text?);
    check_mode(file)?;
    let secret = text.trim();
    if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must hold a token: visible characters without blanks".to_owned());
    }
    Ok(Zeroizing::new(secret.to_owned()))
}
