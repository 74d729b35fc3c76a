//! `quorate serve --print-config`.

use std::fmt::Write as _;

use super::layers::{Settings, one_line};

impl Settings {
    /// The result of all layers as TOML that can be used as a file, each key with what is right
    /// for it and where its value came from. No key holds a secret: those are in files.
    pub(crate) fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for (key, value, origin) in self.iter() {
            let (own, name) = key.name.split_once('.').expect("keys are section.name");
            if own != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{gap}[{own}]");
                section = own;
            }
            let _ = writeln!(text, "# {}", key.needs);
            let _ = writeln!(text, "{name} = {}  # {origin}", one_line(value));
        }
        text
    }
}
