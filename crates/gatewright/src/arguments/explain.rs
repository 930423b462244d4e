//! Flags of `gatewright explain`.

#[cfg(feature = "gateway")]
use std::path::PathBuf;

use clap::Args;
#[cfg(feature = "control-plane")]
use gatewright_model::id::GatewayGroupId;

#[cfg(feature = "control-plane")]
use super::{AdminAccess, service_version};

/// What is asked, and of whom.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Ask about the services in this file instead of those of a control plane.
    #[cfg(feature = "gateway")]
    #[arg(long, env = "GATEWRIGHT_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Ask about each request in this file, one JSON object per line; `-` is stdin.
    #[cfg(feature = "gateway")]
    #[arg(long, env = "GATEWRIGHT_REQUESTS", value_name = "FILE", requires = "config")]
    #[arg(conflicts_with_all = ["method", "host", "path", "header", "remote_addr"])]
    pub(crate) requests: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) request: RequestFlags,
    /// The gateway group whose services are asked about.
    #[cfg(feature = "control-plane")]
    #[arg(long, env = "GATEWRIGHT_GROUP", value_name = "ID", default_value = "default")]
    pub(crate) group: GatewayGroupId,
    /// Ask as if this version were published, such as `pet-store@1.0.0`; repeat it for several services.
    #[cfg(feature = "control-plane")]
    #[arg(long, env = "GATEWRIGHT_SERVICE_VERSION", value_name = "SERVICE@VERSION", value_delimiter = ',')]
    #[arg(value_parser = service_version)]
    pub(crate) service_version: Vec<(String, String)>,
    /// Ask about this revision of the group instead of the newest.
    #[cfg(feature = "control-plane")]
    #[arg(long, env = "GATEWRIGHT_REVISION", value_name = "N")]
    pub(crate) revision: Option<u64>,
    /// Ask about what stood at this moment, in seconds since 1970.
    #[cfg(feature = "control-plane")]
    #[arg(long, env = "GATEWRIGHT_AT", value_name = "SECONDS", conflicts_with = "revision")]
    pub(crate) at: Option<u64>,
    #[cfg(feature = "control-plane")]
    #[command(flatten)]
    pub(crate) access: AdminAccess,
    /// How the answer is written.
    #[arg(short, long, env = "GATEWRIGHT_OUTPUT", value_name = "FORMAT", default_value = "text")]
    pub(crate) output: Output,
}

/// One request, as flags.
#[derive(Debug, Args)]
pub(crate) struct RequestFlags {
    /// The method of the request.
    #[arg(long, env = "GATEWRIGHT_METHOD", default_value = "GET")]
    pub(crate) method: String,
    /// The host the request is for.
    #[arg(long, env = "GATEWRIGHT_HOST", value_name = "NAME")]
    pub(crate) host: Option<String>,
    /// Path and query of the request.
    #[arg(long, env = "GATEWRIGHT_PATH", value_name = "TARGET", default_value = "/")]
    pub(crate) path: String,
    /// A header of the request, such as `X-Team: blue`; repeat it for several.
    #[arg(long, env = "GATEWRIGHT_HEADER", value_name = "NAME: VALUE", value_parser = header)]
    pub(crate) header: Vec<(String, String)>,
    /// The address of the client.
    #[arg(long, env = "GATEWRIGHT_REMOTE_ADDR", value_name = "IP")]
    pub(crate) remote_addr: Option<std::net::IpAddr>,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `Name: value`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
