//! How gateways join a gateway group, and what operators do to let them.

use std::path::PathBuf;

use clap::Args;
#[cfg(feature = "control-plane")]
use clap::Subcommand;
#[cfg(feature = "gateway")]
use clap::builder::NonEmptyStringValueParser;
#[cfg(feature = "control-plane")]
use gatewright_model::id::GatewayGroupId;

/// Which control plane is followed and what proves the group to it, or which file is served.
#[cfg(feature = "gateway")]
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("instance_proof").args(["token", "token_file", "certificate"]))]
pub(crate) struct Joining {
    /// Control planes to follow, such as `https://control-plane:7943`; several are tried in turn. On one machine
    /// `http://` does as well.
    #[arg(
        long,
        env = "GATEWRIGHT_CONTROL_PLANE",
        value_name = "URL",
        required_unless_present = "config",
        requires = "instance_proof",
        value_delimiter = ','
    )]
    pub(crate) control_plane: Vec<crate::remote::ControlPlaneAddress>,
    /// Serve the services in this file instead of those of a control plane, and what it becomes.
    #[arg(long, env = "GATEWRIGHT_CONFIG", value_name = "FILE")]
    #[arg(conflicts_with_all = ["control_plane", "instance_proof"])]
    pub(crate) config: Option<PathBuf>,
    /// The instance token that proves the group.
    #[arg(long, env = "GATEWRIGHT_TOKEN", hide_env_values = true, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) token: Option<String>,
    /// A file that holds the instance token.
    #[arg(long, env = "GATEWRIGHT_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// A PEM file with the certificate that proves the group, instead of a token. Its files may be replaced at any
    /// time.
    #[arg(long, env = "GATEWRIGHT_CERTIFICATE", value_name = "FILE", requires = "key", requires = "ca")]
    pub(crate) certificate: Option<PathBuf>,
    /// A PEM file with the private key of that certificate.
    #[arg(long, env = "GATEWRIGHT_KEY", value_name = "FILE", requires = "certificate")]
    pub(crate) key: Option<PathBuf>,
    /// A PEM file with the authority that the certificates of control planes are from.
    #[arg(long, env = "GATEWRIGHT_CA", value_name = "FILE", requires = "certificate")]
    pub(crate) ca: Option<PathBuf>,
}

/// Flags of `gatewright validate`.
#[cfg(feature = "gateway")]
#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// The configuration file.
    pub(crate) file: PathBuf,
}

/// What `gatewright gateway-group` does.
#[cfg(feature = "control-plane")]
#[derive(Debug, Args)]
pub(crate) struct GatewayGroup {
    #[command(subcommand)]
    pub(crate) command: GatewayGroupCommand,
}

/// The commands of `gatewright gateway-group`.
#[cfg(feature = "control-plane")]
#[derive(Debug, Subcommand)]
pub(crate) enum GatewayGroupCommand {
    /// Create an instance token, or a certificate, and print the command that joins a gateway with it.
    AddInstance(AddInstance),
}

/// Flags of `gatewright gateway-group add-instance`.
#[cfg(feature = "control-plane")]
#[derive(Debug, Args)]
pub(crate) struct AddInstance {
    /// The gateway group.
    #[arg(long, env = "GATEWRIGHT_GROUP", value_name = "ID", default_value = "default")]
    pub(crate) group: GatewayGroupId,
    /// Where the gateway reaches the control plane (its --sync); only for the command that is printed.
    #[arg(long, env = "GATEWRIGHT_CONTROL_PLANE", value_name = "URL")]
    #[arg(default_value = "https://127.0.0.1:7943")]
    pub(crate) control_plane: String,
    /// Create a certificate instead of a token, and write it, its key and the authority to this directory.
    #[arg(long, env = "GATEWRIGHT_CERTIFICATE_DIR", value_name = "DIRECTORY")]
    pub(crate) certificate_dir: Option<PathBuf>,
    /// For how many days the certificate is good.
    #[arg(
        long,
        env = "GATEWRIGHT_DAYS",
        value_name = "N",
        requires = "certificate_dir",
        default_value_t = 365
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) days: u32,
    #[command(flatten)]
    pub(crate) access: super::AdminAccess,
}
