//! What the command line says of certificates, and of whom a client trusts.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Subcommand};

use super::{Connection, Output};

/// Which nodes a client takes for what they say they are.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Trust {
    /// The authorities that sign for the nodes, a file of PEM; for URLs that begin with https
    #[arg(long, env = "QUORATE_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// @FILE with what this caller presents; the text itself is taken, too, and warned of: other users see arguments
    #[arg(long, env = "QUORATE_TOKEN", hide_env_values = true, value_name = "@FILE")]
    pub(crate) token: Option<Secret>,
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Whether a token was given as an argument, which other users of this machine see (RELIABILITY 6, row 8).
pub(crate) fn shows_token(mut matches: &ArgMatches) -> bool {
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    let token = matches.try_get_one::<Secret>("token").ok().flatten();
    let is_shown = |Secret(text): &Secret| !text.starts_with('@');
    token.is_some_and(is_shown) && matches.value_source("token") == Some(ValueSource::CommandLine)
}

/// `quorate token`.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token; its secret is shown once
    Create(CreateToken),
    /// List the tokens, without their secrets, which nobody knows
    List(ListTokens),
    /// Take a token out of use
    Revoke(RevokeToken),
}

/// `quorate token create`.
#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is allowed that is not said. The functions cluster.* and auth.* are for --operate, whatever --call says.\n\nExamples:\n  quorate token create shop --read --call 'inventory.*' --expires 90d\n  quorate token create prometheus --read\n  quorate token create goods --read --call 'inventory.*' --keys inventory/goods/\n  quorate token create ops --read --call '*' --operate --token @root-token"
)]
pub(crate) struct CreateToken {
    /// What people call it
    pub(crate) name: String,
    /// Read the state, the commands, the cluster, and metrics
    #[arg(long)]
    pub(crate) read: bool,
    /// Call functions of that name, or that begin so, with `*` at the end; may be given several times
    #[arg(long, value_name = "FUNCTION")]
    pub(crate) call: Vec<String>,
    /// Change the membership, make and revoke tokens, take backups
    #[arg(long)]
    pub(crate) operate: bool,
    /// Read and call with keys only that begin so; may be given several times; without it, with all. Not with --operate
    #[arg(long, value_name = "BEGINNING", conflicts_with = "operate")]
    pub(crate) keys: Vec<String>,
    /// How long it counts, such as 90d; without it, it does not expire
    #[arg(long, value_name = "DURATION")]
    pub(crate) expires: Option<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `quorate token list`.
#[derive(Debug, Args)]
pub(crate) struct ListTokens {
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `quorate token revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeToken {
    /// The token, by id or name
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `quorate certificates`.
#[derive(Debug, Subcommand)]
pub(crate) enum Certificates {
    /// Make an authority, and a certificate for each node
    Create(Create),
}

/// `quorate certificates create`.
#[derive(Debug, Args)]
#[command(
    after_help = "Makes DIR/ca.crt and DIR/ca.key, and for each node DIR/NODE.crt and DIR/NODE.key, which serve for REST and between\nthe nodes; valid for localhost, 127.0.0.1, the name of the node, and each --host. Nothing is overwritten. Where\nDIR/ca.key is there already, it signs for the nodes that are new.\n\nExamples:\n  quorate certificates create --cluster shop --node a --node b --node c --host shop.example certificates\n  quorate certificates create --cluster shop --node d certificates\n  quorate certificates create --cluster shop --gateway front --host shop.example certificates"
)]
pub(crate) struct Create {
    /// Where the files go
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// The name of the cluster, as in cluster.name
    #[arg(long, value_name = "NAME", default_value = "quorate")]
    pub(crate) cluster: String,
    /// The name of a node, as in node.name; may be given several times
    #[arg(long = "node", value_name = "NAME", required_unless_present = "gateways")]
    pub(crate) nodes: Vec<String>,
    /// The name of a gateway without data, whose certificate is for REST and for no peer; may be given several times
    #[arg(long = "gateway", value_name = "NAME")]
    pub(crate) gateways: Vec<String>,
    /// A name or an address by which callers reach the nodes; may be given several times
    #[arg(long = "host", value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
    /// For how long the certificates are valid, but for that of the authority
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) days: u32,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// `quorate audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Whether the lines of the audit log in the log of a node are as they were written, and all there
    Check(CheckAudit),
}

/// `quorate audit check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Reads the log of one node, text or JSON, its oldest lines first, without anything before the lines. Lines cut off at the\nend are not missed: compare the last number with the metric quorate_audit_lines_total, or the chain with one noted before.\n\nExamples:\n  journalctl -u quorate -o cat | quorate audit check -\n  docker logs quorate-a-1 2>&1 | quorate audit check -"
)]
pub(crate) struct CheckAudit {
    /// The log, or - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}
