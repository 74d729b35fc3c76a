//! The configuration of a node, from bytes in place of what an operator writes.
//!
//! The configuration belongs to the binary, on which nothing depends, so its source is taken in
//! here a second time.

use std::io::Write as _;

use tempfile::NamedTempFile;

#[expect(dead_code, reason = "the targets load a configuration; a node also uses it")]
#[path = "../../../crates/quorate/src/config/mod.rs"]
mod config;

use config::{Config, ConfigError, GatewayOnly, Settings, Sources};

/// Bytes as layers: a line `--set key=value` is such an argument, a line `env NAME=value` a
/// variable, and all others are the file. What is wrong gets one line; what is right can be
/// printed, and what is printed means the same.
///
/// # Panics
/// When that does not hold, or when no temporary file can be written.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (mut toml, mut sources) = (String::new(), Sources::default());
    for line in text.split_inclusive('\n') {
        let told = line.trim_end_matches('\n');
        if let Some(set) = told.strip_prefix("--set ") {
            sources.sets.push(set.to_owned());
        } else if let Some((name, value)) = told.strip_prefix("env ").and_then(|variable| variable.split_once('=')) {
            sources.environment.push((name.to_owned(), value.to_owned()));
        } else {
            toml.push_str(line);
        }
    }
    let file = file(&toml);
    sources.file = Some(file.path().to_owned());
    let (told, settings) = match load(&sources) {
        Ok(loaded) => loaded,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "more than one line: {error}");
            return;
        }
    };
    let printed = self::file(&settings.to_toml());
    let again = load(&Sources { file: Some(printed.path().to_owned()), ..Sources::default() });
    let again = again.unwrap_or_else(|error| panic!("what is printed is refused: {error}\n{}", settings.to_toml()));
    assert_eq!(again.0, told, "what is printed means something else:\n{}", settings.to_toml());
}

/// What `quorate serve` reads: a node, or a gateway without one.
#[derive(Debug, PartialEq)]
enum Told {
    Node(Box<Config>),
    Gateway(Box<GatewayOnly>),
}

fn load(sources: &Sources) -> Result<(Told, Settings), ConfigError> {
    let settings = Settings::collect(sources)?;
    let told = match GatewayOnly::from_settings(&settings)? {
        Some(gateway) => Told::Gateway(Box::new(gateway)),
        None => Told::Node(Box::new(Config::from_settings(&settings)?)),
    };
    Ok((told, settings))
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("written");
    file
}
