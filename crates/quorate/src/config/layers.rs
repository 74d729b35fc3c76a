//! The layers: where values come from and how they are read.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;

use super::keys::{KEYS, Key, Shape, find};
use super::size;

/// What our variables of the environment begin with.
const PREFIX: &str = "QUORATE_";

/// Variables of the command line, which are no keys.
const OTHER_VARIABLES: [&str; 4] = ["QUORATE_CA", "QUORATE_CONFIG", "QUORATE_TOKEN", "QUORATE_URL"];

/// One line for the operator: key, value, where it came from, what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(pub(crate) String);

/// What the layers are read from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// `--config`.
    pub(crate) file: Option<PathBuf>,
    /// The environment; variables that are not ours are skipped.
    pub(crate) environment: Vec<(String, String)>,
    /// Each `--set`.
    pub(crate) sets: Vec<String>,
}

impl Sources {
    /// A file, the environment of this process, and `--set`s.
    pub(crate) fn of_this_process(file: Option<PathBuf>, sets: &[String]) -> Self {
        // What is not UTF-8 cannot be one of our values.
        let environment = std::env::vars_os()
            .filter_map(|(variable, text)| Some((variable.into_string().ok()?, text.to_string_lossy().into_owned())))
            .collect();
        Self { file, environment, sets: sets.to_vec() }
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody said otherwise.
    Default,
    /// The file.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
    /// `--set`.
    Set,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(variable) => write!(f, "environment {}", variable.escape_debug()),
            Self::Set => f.write_str("--set"),
        }
    }
}

/// Every key with its value and where that came from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings(BTreeMap<&'static str, (Value, Origin)>);

impl Settings {
    /// Reads all layers; later ones win.
    ///
    /// # Errors
    /// One line: a file that cannot be read, an unknown key, text that is not of its key's shape.
    pub(crate) fn collect(sources: &Sources) -> Result<Self, ConfigError> {
        let mut settings = Self(BTreeMap::new());
        for key in KEYS {
            let value = parse_toml(key.default).expect("defaults are TOML");
            settings.0.insert(key.name, (value, Origin::Default));
        }
        if let Some(path) = &sources.file {
            settings.take_file(path)?;
        }
        settings.take_environment(&sources.environment)?;
        for set in &sources.sets {
            let (name, text) = set
                .split_once('=')
                .ok_or_else(|| ConfigError(format!("--set {}: must be key=value", set.escape_debug())))?;
            settings.take_text(name.trim(), text.trim(), Origin::Set)?;
        }
        Ok(settings)
    }

    fn take_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let origin = Origin::File(path.to_owned());
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError(format!("--config {}: cannot be read: {error}", path.display())))?;
        let file: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            let message = error.message().replace('\n', ", ");
            ConfigError(format!("{}:{line}: not TOML: {message}", path.display()))
        })?;
        for (section, content) in file {
            let Value::Table(content) = content else {
                return Err(unknown(&section, &origin));
            };
            if content.is_empty() && !is_section(&section) {
                return Err(unknown(&section, &origin));
            }
            for (name, value) in content {
                let key = known(&format!("{section}.{name}"), &origin)?;
                self.0.insert(key.name, (value, origin.clone()));
            }
        }
        Ok(())
    }

    /// Takes `QUORATE_SECTION__KEY`, and `RUST_LOG` as `log.level`. Any other `QUORATE_…` is
    /// refused, but for those of the command line and those that Kubernetes makes for a service
    /// named `quorate`.
    fn take_environment(&mut self, environment: &[(String, String)]) -> Result<(), ConfigError> {
        let mut ours: Vec<(String, &str, &str)> = Vec::new();
        for (variable, text) in environment {
            if variable == "RUST_LOG" && !text.is_empty() {
                ours.insert(0, ("log.level".to_owned(), variable, text));
            }
            let Some(path) = variable.strip_prefix(PREFIX) else { continue };
            if OTHER_VARIABLES.contains(&variable.as_str()) || is_of_a_service(variable, text) {
                continue;
            }
            if !path.contains("__") {
                return Err(unknown_variable(variable));
            }
            ours.push((path.to_ascii_lowercase().replace("__", "."), variable, text));
        }
        for (name, variable, text) in ours {
            self.take_text(&name, text, Origin::Environment(variable.to_owned()))?;
        }
        Ok(())
    }

    fn take_text(&mut self, name: &str, text: &str, origin: Origin) -> Result<(), ConfigError> {
        let key = known(name, &origin)?;
        let quoted = || text.starts_with(['"', '\'']).then(|| parse_toml(text)).flatten();
        let value = match key.shape {
            Shape::Text => Some(quoted().unwrap_or_else(|| text.into())),
            Shape::Texts if !text.starts_with('[') => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(Value::Array(items.map(Value::from).collect()))
            }
            Shape::Flag | Shape::Count | Shape::Texts | Shape::Toml => parse_toml(text),
        };
        // What is not TOML is kept as text, for the check of the key to name it.
        self.0.insert(key.name, (value.unwrap_or_else(|| text.into()), origin));
        Ok(())
    }

    fn get(&self, name: &'static str) -> &(Value, Origin) {
        self.0.get(name).unwrap_or_else(|| panic!("{name} is missing in the table of keys"))
    }

    /// All keys in order, with value and origin.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Key, &Value, &Origin)> {
        KEYS.iter().map(|key| {
            let (value, origin) = self.get(key.name);
            (key, value, origin)
        })
    }

    /// The keys whose value is another one than the default. Not by where it came from: what is printed can be read again.
    pub(crate) fn changed(&self) -> impl Iterator<Item = &'static str> {
        let is_changed = |(key, value, _): &(&Key, &Value, &Origin)| parse_toml(key.default).as_ref() != Some(value);
        self.iter().filter(is_changed).map(|(key, ..)| key.name)
    }

    /// The value as it is.
    pub(crate) fn value(&self, name: &'static str) -> &Value {
        &self.get(name).0
    }

    /// A string.
    pub(crate) fn text(&self, name: &'static str) -> Result<String, ConfigError> {
        self.value(name).as_str().map(str::to_owned).ok_or_else(|| self.wrong(name))
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, name: &'static str) -> Result<bool, ConfigError> {
        self.value(name).as_bool().ok_or_else(|| self.wrong(name))
    }

    /// A whole number within `range`.
    pub(crate) fn count(&self, name: &'static str, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let count = self.value(name).as_integer().and_then(|count| u64::try_from(count).ok());
        count.filter(|count| range.contains(count)).ok_or_else(|| self.wrong(name))
    }

    /// A number, whole or not.
    pub(crate) fn number(&self, name: &'static str) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "whoever asks for such a number takes small ones")]
        self.value(name).as_float().or_else(|| self.value(name).as_integer().map(|whole| whole as f64))
    }

    /// A duration within `range`, such as `50ms`.
    pub(crate) fn duration(
        &self,
        name: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Result<Duration, ConfigError> {
        let duration = humantime::parse_duration(&self.text(name)?).ok();
        duration.filter(|duration| range.contains(duration)).ok_or_else(|| self.wrong(name))
    }

    /// A number of bytes within `range`, such as `512MiB`.
    pub(crate) fn size(&self, name: &'static str, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        size::parse(&self.text(name)?).filter(|size| range.contains(size)).ok_or_else(|| self.wrong(name))
    }

    /// A list of strings.
    pub(crate) fn texts(&self, name: &'static str) -> Result<Vec<String>, ConfigError> {
        texts(self.value(name)).ok_or_else(|| self.wrong(name))
    }

    /// The error for a value that is not what the key needs.
    pub(crate) fn wrong(&self, name: &'static str) -> ConfigError {
        let key = find(name).expect("asked for by its name in the table");
        self.refuse(name, &format!("must be {}", key.needs))
    }

    /// The error for a value that is wrong for a reason of its own.
    pub(crate) fn refuse(&self, name: &'static str, needs: &str) -> ConfigError {
        let (value, origin) = self.get(name);
        ConfigError(format!("{name} = {} ({origin}): {needs}", one_line(value)))
    }
}

/// A list of strings, if it is one.
pub(crate) fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

/// A value as TOML on one line; `toml` itself writes a text with line breaks over several.
pub(crate) fn one_line(value: &Value) -> String {
    match value {
        Value::String(text) if text.contains('\n') => {
            let escaped = text.chars().map(|letter| match letter {
                '"' | '\\' => format!("\\{letter}"),
                _ if letter.is_control() => format!("\\u{:04X}", u32::from(letter)),
                _ => letter.to_string(),
            });
            format!("\"{}\"", escaped.collect::<String>())
        }
        Value::Array(items) => format!("[{}]", items.iter().map(one_line).collect::<Vec<_>>().join(", ")),
        // Tables are of members, whose names have no line breaks; others are only shown in errors.
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Table(_) => value.to_string().replace('\n', " "),
    }
}

fn parse_toml(text: &str) -> Option<Value> {
    let table: toml::Table = format!("value = {text}").parse().ok()?;
    // A text with a line break could smuggle in further keys.
    (table.len() == 1).then(|| table.get("value").cloned()).flatten()
}

fn is_section(section: &str) -> bool {
    KEYS.iter().any(|key| key.name.split_once('.').is_some_and(|(own, _)| own == section))
}

/// Whether Kubernetes made it for a service whose name begins with `quorate`, such as
/// `QUORATE_SERVICE_HOST`, `QUORATE_PORT=tcp://…` and `QUORATE_PEERS_PORT_7080_TCP_ADDR`.
fn is_of_a_service(variable: &str, text: &str) -> bool {
    let numbered = variable.split_once("_PORT_").is_some_and(|(_, rest)| {
        let protocol = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
        ["_TCP", "_UDP", "_SCTP"].iter().any(|known| protocol.starts_with(known))
    });
    numbered
        || variable.contains("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || (variable.ends_with("_PORT") && text.contains("://"))
}

/// The error for a variable that looks like one of ours, with the one that may have been meant:
/// a slip of the pen, or a key without its section.
fn unknown_variable(variable: &str) -> ConfigError {
    let path = variable.strip_prefix(PREFIX).unwrap_or(variable).to_ascii_lowercase();
    let slips = |name: &str| {
        let short = name.split_once('.').map_or(name, |(_, short)| short);
        distance(&path, &name.replace('.', "__")).min(distance(&path, short))
    };
    let nearest = KEYS.iter().map(|key| key.name).min_by_key(|name| slips(name)).unwrap_or_default();
    let nearest = nearest.to_ascii_uppercase().replace('.', "__");
    ConfigError(format!(
        "environment {variable}: unknown key; the nearest one is {PREFIX}{nearest}; correct it or remove it"
    ))
}

/// How many bytes must be added, taken away or changed to make one text of the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, own) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, theirs) in other.bytes().enumerate() {
            let changed = diagonal + usize::from(own != theirs);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

fn known(name: &str, origin: &Origin) -> Result<&'static Key, ConfigError> {
    find(name).ok_or_else(|| unknown(name, origin))
}

/// The error for a key that is not in the table, with the keys that its section has.
fn unknown(name: &str, origin: &Origin) -> ConfigError {
    let section = name.split('.').next().unwrap_or(name);
    let name = name.escape_debug();
    let known = if is_section(section) {
        let keys = KEYS.iter().filter_map(|key| key.name.strip_prefix(section)?.strip_prefix('.'));
        format!("[{section}] has {}", keys.collect::<Vec<_>>().join(", "))
    } else {
        let mut sections: Vec<&str> = KEYS.iter().filter_map(|key| key.name.split('.').next()).collect();
        sections.dedup();
        format!("the sections are {}", sections.join(", "))
    };
    ConfigError(format!("{name} ({origin}): unknown key; {known}"))
}
