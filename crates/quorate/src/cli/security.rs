//! What the command line says of certificates, and of whom a client trusts.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Output;

/// Which nodes a client takes for what they say they are.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Trust {
    /// The authorities that sign for the nodes, a file of PEM; for URLs that begin with https
    #[arg(long, env = "QUORATE_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
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
    after_help = "Makes DIR/ca.crt and DIR/ca.key, and for each node DIR/NODE.crt and DIR/NODE.key, which serve for REST and between\nthe nodes; valid for localhost, 127.0.0.1, the name of the node, and each --host. Nothing is overwritten. Where\nDIR/ca.key is there already, it signs for the nodes that are new.\n\nExamples:\n  quorate certificates create --cluster shop --node a --node b --node c --host shop.example certificates\n  quorate certificates create --cluster shop --node d certificates"
)]
pub(crate) struct Create {
    /// Where the files go
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// The name of the cluster, as in cluster.name
    #[arg(long, value_name = "NAME", default_value = "quorate")]
    pub(crate) cluster: String,
    /// The name of a node, as in node.name; may be given several times
    #[arg(long = "node", value_name = "NAME", required = true)]
    pub(crate) nodes: Vec<String>,
    /// A name or an address by which callers reach the nodes; may be given several times
    #[arg(long = "host", value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
    /// For how long the certificates of the nodes are valid
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) days: u32,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}
