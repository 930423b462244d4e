//! What can be written on the command line.
//!
//! Every flag can also be set as `GATEWRIGHT_<FLAG>`. Groups of flags that several commands share are declared once
//! and flattened, so that a flag means the same everywhere. Parsing ends with values that need no second look;
//! a mistake is reported by clap with exit code 2.

#[cfg(feature = "control-plane")]
mod store;

mod explain;
mod fleet;

#[cfg(any(feature = "control-plane", feature = "gateway"))]
use std::net::SocketAddr;
#[cfg(any(feature = "control-plane", feature = "gateway"))]
use std::time::Duration;

#[cfg(feature = "gateway")]
use std::num::NonZeroUsize;
use std::path::PathBuf;

#[cfg(any(feature = "control-plane", feature = "gateway"))]
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};
pub(crate) use explain::{Explain, Output, RequestFlags};
#[cfg(feature = "control-plane")]
pub(crate) use fleet::{AddInstance, GatewayGroup, GatewayGroupCommand};
#[cfg(feature = "gateway")]
pub(crate) use fleet::{Joining, Validate};
#[cfg(feature = "gateway")]
use gatewright_gateway::config::DeniedNetworks;
#[cfg(feature = "gateway")]
use gatewright_gateway::telemetry::access_log::format::{Format, StreamFormat};
#[cfg(feature = "gateway")]
use gatewright_gateway::telemetry::access_log::{self, Destination};
#[cfg(any(feature = "control-plane", feature = "gateway"))]
use gatewright_model::id::GatewayGroupId;
#[cfg(feature = "control-plane")]
pub(crate) use store::{DataDirectory, Database, Store, StoreCommand};
use tracing_subscriber::EnvFilter;

#[cfg(feature = "control-plane")]
use crate::commands::audit::Audit;
#[cfg(feature = "control-plane")]
use crate::commands::canary::Canary;
#[cfg(feature = "control-plane")]
use crate::commands::diff::Diff;
#[cfg(feature = "control-plane")]
use crate::commands::openapi::{Export, Import};
#[cfg(feature = "control-plane")]
use crate::commands::preview::Preview;
#[cfg(feature = "control-plane")]
use crate::commands::publish::Publish;
#[cfg(feature = "control-plane")]
use crate::commands::quick::Backend;
#[cfg(feature = "control-plane")]
use crate::commands::release_set::ReleaseSet;

/// An API gateway with a control plane: services are designed as templates, published as immutable versions to
/// gateway groups, and served by gateways.
#[derive(Debug, Parser)]
#[command(name = "gatewright", version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Which logs are written to stderr: a level, or directives such as `info,gatewright_gateway=debug`.
    #[arg(long, env = "GATEWRIGHT_LOG", value_name = "FILTER", default_value = "info", global = true)]
    #[arg(value_parser = log_filter)]
    pub(crate) log: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a control plane and a gateway of the group `default` in one process.
    #[cfg(all(feature = "control-plane", feature = "gateway"))]
    Up(Box<Up>),
    /// Run a control plane: the admin API, and the configuration that gateways follow.
    #[cfg(feature = "control-plane")]
    ControlPlane(ControlPlane),
    /// Run a gateway that follows a control plane, or serves a file.
    #[cfg(feature = "gateway")]
    Gateway(Box<Gateway>),
    /// Publish a service for a backend in one line.
    #[cfg(feature = "control-plane")]
    Quick(Quick),
    /// Publish a service template as a new version, and wait until gateways serve it.
    #[cfg(feature = "control-plane")]
    Publish(Publish),
    /// Publish several services to several gateway groups, all or nothing, or undo that.
    #[cfg(feature = "control-plane")]
    ReleaseSet(ReleaseSet),
    /// Say what publishing would change, and for which of the requests that came lately.
    #[cfg(feature = "control-plane")]
    Preview(Preview),
    /// Explain which route serves a request, and why no other does.
    Explain(Explain),
    /// Say what differs between two versions of a service, its template, or what gateway groups have.
    #[cfg(feature = "control-plane")]
    Diff(Diff),
    /// Try a version beside the running one, for a share of the requests.
    #[cfg(feature = "control-plane")]
    Canary(Canary),
    /// Check that the audit log is as it was written.
    #[cfg(feature = "control-plane")]
    Audit(Audit),
    /// Make a service template of an OpenAPI document, or bring one up to date with it.
    #[cfg(feature = "control-plane")]
    Import(Import),
    /// Write a service as an OpenAPI document.
    #[cfg(feature = "control-plane")]
    Export(Export),
    /// Evaluate expressions, one per line.
    Expression(Expression),
    /// Check a configuration file as a gateway would, without one.
    #[cfg(feature = "gateway")]
    Validate(Validate),
    /// Let gateways join a gateway group.
    #[cfg(feature = "control-plane")]
    GatewayGroup(GatewayGroup),
    /// Back a store up, or move it to another database.
    #[cfg(feature = "control-plane")]
    Store(Store),
    /// Print the completions of a shell.
    Completions(Completions),
}

/// Flags of `gatewright up`.
#[cfg(all(feature = "control-plane", feature = "gateway"))]
#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) data: DataDirectory,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) admin: AdminListener,
    #[command(flatten)]
    pub(crate) traffic: TrafficListeners,
    #[command(flatten)]
    pub(crate) shutdown: ShutdownLimit,
    /// Start two pet store backends and publish a service for them.
    #[arg(long, env = "GATEWRIGHT_DEMO", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) demo: bool,
}

/// Flags of `gatewright control-plane`.
#[cfg(feature = "control-plane")]
#[derive(Debug, Args)]
pub(crate) struct ControlPlane {
    #[command(flatten)]
    pub(crate) data: DataDirectory,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) admin: AdminListener,
    /// Where gateways get their configuration.
    #[arg(long, env = "GATEWRIGHT_SYNC", value_name = "ADDRESS", default_value = "127.0.0.1:7943")]
    pub(crate) sync: SocketAddr,
    #[command(flatten)]
    pub(crate) shutdown: ShutdownLimit,
}

/// Flags of `gatewright gateway`.
#[cfg(feature = "gateway")]
#[derive(Debug, Args)]
pub(crate) struct Gateway {
    #[command(flatten)]
    pub(crate) joining: Joining,
    /// The gateway group whose configuration is served.
    #[arg(long, env = "GATEWRIGHT_GROUP", value_name = "ID", default_value = "default")]
    pub(crate) group: GatewayGroupId,
    /// Where the last good configuration is kept, for a start while no control plane answers.
    #[arg(long, env = "GATEWRIGHT_DATA_DIR", value_name = "DIRECTORY", default_value = "./gatewright-data")]
    pub(crate) data_dir: PathBuf,
    #[command(flatten)]
    pub(crate) traffic: TrafficListeners,
    #[command(flatten)]
    pub(crate) shutdown: ShutdownLimit,
}

/// Flags of `gatewright quick`.
#[cfg(feature = "control-plane")]
#[derive(Debug, Args)]
pub(crate) struct Quick {
    /// The backend, such as `http://127.0.0.1:3000`.
    pub(crate) backend: Backend,
    /// The path prefix under which the backend is reached.
    #[arg(long, env = "GATEWRIGHT_PATH", value_name = "PREFIX", default_value = "/", value_parser = path_prefix)]
    pub(crate) path: String,
    /// A domain name the service accepts; repeat it for several. Without: any.
    #[arg(long, env = "GATEWRIGHT_HOST", value_name = "NAME", value_delimiter = ',')]
    pub(crate) host: Vec<String>,
    /// Name of the service. Without: made from the path, or from the backend's address.
    #[arg(long, env = "GATEWRIGHT_NAME")]
    pub(crate) name: Option<String>,
    /// The gateway group to publish to.
    #[arg(long, env = "GATEWRIGHT_GROUP", value_name = "ID", default_value = "default")]
    pub(crate) group: GatewayGroupId,
    /// Forward the path as the client wrote it, path prefix included.
    #[arg(long, env = "GATEWRIGHT_KEEP_PREFIX", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) keep_prefix: bool,
    #[command(flatten)]
    pub(crate) access: AdminAccess,
    /// Where the gateway answers; only for the curl that is printed.
    #[arg(long, env = "GATEWRIGHT_PROXY", value_name = "ADDRESS", default_value = "127.0.0.1:9080")]
    pub(crate) proxy: SocketAddr,
}

/// Flags of `gatewright expression`.
#[derive(Debug, Args)]
pub(crate) struct Expression {
    /// The cases, one JSON object `{"expr": …, "vars": {…}}` per line; `-` is stdin.
    #[arg(long, env = "GATEWRIGHT_CASES", value_name = "FILE")]
    pub(crate) cases: PathBuf,
}

/// Flags of `gatewright completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

/// Where the admin API is and what lets one in.
#[cfg(feature = "control-plane")]
#[derive(Debug, Args)]
pub(crate) struct AdminAccess {
    /// Where the admin API is.
    #[arg(long, env = "GATEWRIGHT_ADMIN_URL", value_name = "URL", default_value = "http://127.0.0.1:7080")]
    pub(crate) admin_url: String,
    /// The admin key. Without: the file `admin-key` in the data directory.
    #[arg(long, env = "GATEWRIGHT_ADMIN_KEY", value_name = "KEY", hide_env_values = true)]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) admin_key: Option<String>,
    #[command(flatten)]
    pub(crate) data: DataDirectory,
}

/// The admin API's listeners and first secrets.
#[cfg(feature = "control-plane")]
#[derive(Debug, Args)]
pub(crate) struct AdminListener {
    /// Where the admin API answers.
    #[arg(long, env = "GATEWRIGHT_ADMIN", value_name = "ADDRESS", default_value = "127.0.0.1:7080")]
    pub(crate) admin: SocketAddr,
    /// Where the admin API answers over TLS as well; without an address: 127.0.0.1:7443. Without the flag: nowhere.
    #[arg(long, env = "GATEWRIGHT_ADMIN_TLS", value_name = "ADDRESS")]
    #[arg(num_args = 0..=1, default_missing_value = "127.0.0.1:7443")]
    pub(crate) admin_tls: Option<SocketAddr>,
    /// A PEM file with the certificate chain of the admin API; without: a self-signed one in the data directory.
    #[arg(long, env = "GATEWRIGHT_ADMIN_TLS_CERTIFICATE", value_name = "FILE")]
    #[arg(requires = "admin_tls", requires = "admin_tls_key")]
    pub(crate) admin_tls_certificate: Option<PathBuf>,
    /// A PEM file with the private key of that certificate.
    #[arg(long, env = "GATEWRIGHT_ADMIN_TLS_KEY", value_name = "FILE", requires = "admin_tls_certificate")]
    pub(crate) admin_tls_key: Option<PathBuf>,
    /// Which version of the documented interface `/api/version` answers; clients choose their behaviour by it.
    #[arg(long, env = "GATEWRIGHT_API_VERSION", value_name = "VERSION")]
    #[arg(default_value = gatewright_control_plane::API_VERSION_DEFAULT, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) api_version: String,
    /// How long rows of the audit log are kept, such as `60d` or `36h`.
    #[arg(long, env = "GATEWRIGHT_AUDIT_RETENTION", value_name = "TIME", default_value = "60d")]
    #[arg(value_parser = retention)]
    pub(crate) audit_retention: Duration,
    /// The administrator's key of a first start; without: a random one, printed once. Prefer the environment.
    #[arg(long, env = "GATEWRIGHT_ADMIN_KEY", value_name = "KEY", hide_env_values = true)]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) admin_key: Option<String>,
    /// The administrator's password of a first start; without: a random one, printed once. Prefer the environment.
    #[arg(long, env = "GATEWRIGHT_ADMIN_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) admin_password: Option<String>,
}

/// A gateway's listeners and workers.
#[cfg(feature = "gateway")]
#[derive(Debug, Args)]
pub(crate) struct TrafficListeners {
    /// Where clients are answered.
    #[arg(long, env = "GATEWRIGHT_PROXY", value_name = "ADDRESS", default_value = "127.0.0.1:9080")]
    pub(crate) proxy: SocketAddr,
    /// Where clients are answered over TLS; without an address: 127.0.0.1:9443. Without the flag: nowhere.
    #[arg(long, env = "GATEWRIGHT_PROXY_TLS", value_name = "ADDRESS")]
    #[arg(num_args = 0..=1, default_missing_value = "127.0.0.1:9443")]
    pub(crate) proxy_tls: Option<SocketAddr>,
    /// The server name taken for that of TLS clients that name none; without: a certificate for `*`, if there is one.
    #[arg(long, env = "GATEWRIGHT_TLS_FALLBACK_SNI", value_name = "NAME", requires = "proxy_tls")]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) tls_fallback_sni: Option<String>,
    /// A PEM file with authorities that certificates of upstreams may come from, beside those of the system.
    #[arg(long, env = "GATEWRIGHT_UPSTREAM_CA", value_name = "FILE")]
    pub(crate) upstream_ca: Option<PathBuf>,
    /// Where `/status` and `/status/ready` answer.
    #[arg(long, env = "GATEWRIGHT_STATUS", value_name = "ADDRESS", default_value = "127.0.0.1:7085")]
    pub(crate) status: SocketAddr,
    /// How many workers serve requests, each on one thread; without: one for each processor.
    #[arg(long, env = "GATEWRIGHT_WORKERS", value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Networks that no configuration makes the gateway connect to, for nodes, health checks or plugins; without: the
    /// addresses under which clouds tell their machines secrets. `none`: there are none.
    #[arg(long, env = "GATEWRIGHT_DENIED_NETWORKS", value_name = "NETWORK", value_delimiter = ',')]
    denied_networks: Option<Vec<crate::client_limits::DeniedNetwork>>,
    #[command(flatten)]
    pub(crate) access_log: AccessLog,
    /// Count how long each plugin takes; the metrics say so.
    #[arg(long, env = "GATEWRIGHT_MEASURE_PLUGINS")]
    pub(crate) measure_plugins: bool,
    /// Tell who sends this in the header `Gatewright-Debug` what served the request; without: nobody is told.
    #[arg(long, env = "GATEWRIGHT_DEBUG_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub(crate) debug_token: Option<gatewright_gateway::DebugToken>,
    #[command(flatten)]
    pub(crate) clients: crate::client_limits::ClientLimits,
}

/// A gateway's access log.
#[cfg(feature = "gateway")]
#[derive(Debug, Args)]
pub(crate) struct AccessLog {
    /// Write a line for each request and each stream to this file; `-` is stdout. SIGHUP opens the file anew.
    #[arg(long, env = "GATEWRIGHT_ACCESS_LOG", value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// What a line says: `json`, `combined`, or text with variables such as `$remote_addr $status`.
    #[arg(long, env = "GATEWRIGHT_ACCESS_LOG_FORMAT", value_name = "FORMAT", requires = "access_log")]
    #[arg(default_value = "json", value_parser = Format::parse)]
    access_log_format: Format,
    /// What a line of a stream says: `json`, `combined`, or text with variables such as `$remote_addr $bytes_sent`;
    /// without: `json` if lines of requests are, otherwise `combined`.
    #[arg(long, env = "GATEWRIGHT_ACCESS_LOG_STREAM_FORMAT", value_name = "FORMAT", requires = "access_log")]
    #[arg(value_parser = StreamFormat::parse)]
    access_log_stream_format: Option<StreamFormat>,
    /// The part of what ends with a status below 500 that is written; rejects and failures always are.
    #[arg(long, env = "GATEWRIGHT_ACCESS_LOG_SAMPLE", value_name = "0..1", requires = "access_log")]
    #[arg(default_value = "1", value_parser = share)]
    access_log_sample: f64,
}

#[cfg(feature = "gateway")]
impl AccessLog {
    /// What the flags mean to a gateway; `None`: no access log.
    pub(crate) fn settings(&self) -> Option<access_log::Settings> {
        let to = match self.access_log.as_ref()? {
            stdout if stdout.as_os_str() == "-" => Destination::Stdout,
            file => Destination::File(file.clone()),
        };
        let stream_format = self.access_log_stream_format.clone();
        Some(access_log::Settings {
            to,
            format: self.access_log_format.clone(),
            stream_format: stream_format.unwrap_or_else(|| self.access_log_format.of_streams()),
            sample: self.access_log_sample,
        })
    }
}

#[cfg(feature = "gateway")]
impl TrafficListeners {
    /// Where no configuration makes the gateway connect to.
    pub(crate) fn denied(&self) -> DeniedNetworks {
        let networks = self.denied_networks.as_ref();
        networks.map_or_else(DeniedNetworks::default, |networks| {
            DeniedNetworks::new(networks.iter().filter_map(|network| network.0))
        })
    }

    /// How many workers to start.
    pub(crate) fn workers(&self) -> NonZeroUsize {
        let available = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.workers.unwrap_or_else(available)
    }

    /// Where and how TLS is served.
    pub(crate) fn tls(&self) -> gatewright_gateway::config::Tls {
        gatewright_gateway::config::Tls {
            listener: self.proxy_tls,
            fallback_server_name: self.tls_fallback_sni.clone(),
            upstream_authorities: self.upstream_ca.clone(),
        }
    }
}

/// How long a stop may take.
#[cfg(any(feature = "control-plane", feature = "gateway"))]
#[derive(Debug, Args)]
pub(crate) struct ShutdownLimit {
    /// Seconds that requests in flight get to finish after SIGTERM or SIGINT.
    #[arg(long, env = "GATEWRIGHT_SHUTDOWN_DEADLINE", value_name = "SECONDS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=86_400))]
    shutdown_deadline: u64,
}

#[cfg(any(feature = "control-plane", feature = "gateway"))]
impl ShutdownLimit {
    /// The same as a length of time.
    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.shutdown_deadline)
    }
}

fn log_filter(text: &str) -> Result<String, String> {
    EnvFilter::builder().parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

#[cfg(feature = "control-plane")]
pub(crate) fn service_version(text: &str) -> Result<(String, String), String> {
    // Ids contain no `@`; version numbers may.
    let (service, version) = text.split_once('@').ok_or("write it as service@version")?;
    Ok((service.to_owned(), version.to_owned()))
}

/// A whole number of days or hours, at least one.
#[cfg(feature = "control-plane")]
fn retention(text: &str) -> Result<Duration, String> {
    let (number, hours) = match (text.strip_suffix('d'), text.strip_suffix('h')) {
        (Some(number), _) => (number, 24),
        (_, Some(number)) => (number, 1),
        _ => return Err("write days or hours, such as `60d` or `36h`".to_owned()),
    };
    let number: u32 = number.parse().map_err(|_| "a whole number comes before the unit".to_owned())?;
    if number == 0 {
        return Err("an audit log is kept for an hour at least".to_owned());
    }
    Ok(Duration::from_secs(u64::from(number) * hours * 60 * 60))
}

/// A part of a whole, from 0 to 1.
#[cfg(feature = "gateway")]
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "write a number from 0 to 1, such as `0.1`".to_owned())
}

/// A path prefix begins with `/`, holds nothing that ends a path, and is written without a closing `/`.
#[cfg(feature = "control-plane")]
fn path_prefix(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err("a path begins with `/`".to_owned());
    }
    if let Some(wrong) = text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '?' | '#' | '*' | '\'')) {
        return Err(format!("{wrong:?} cannot stand in a path prefix; percent-encode it"));
    }
    let trimmed = text.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_environment_variable() {
        let arguments = Arguments::command();
        let nested = arguments.get_subcommands().flat_map(clap::Command::get_subcommands);
        for command in arguments.get_subcommands().chain(nested) {
            for flag in command.get_arguments().filter_map(|argument| Some((argument, argument.get_long()?)))
            {
                let expected = format!("GATEWRIGHT_{}", flag.1.replace('-', "_").to_uppercase());
                let found = flag.0.get_env().map(|name| name.to_string_lossy().into_owned());
                assert_eq!(found.as_deref(), Some(expected.as_str()), "{} --{}", command.get_name(), flag.1);
            }
        }
    }

    #[cfg(all(feature = "control-plane", feature = "gateway"))]
    #[test]
    fn up_listens_on_loopback_unless_told_otherwise() {
        let Command::Up(up) = Arguments::try_parse_from(["gatewright", "up"]).unwrap().command else {
            panic!("not `up`");
        };
        let addresses = [up.admin.admin, up.traffic.proxy, up.traffic.status].map(|a| a.to_string());
        assert_eq!(addresses, ["127.0.0.1:7080", "127.0.0.1:9080", "127.0.0.1:7085"]);
        assert_eq!(up.data.data_dir, PathBuf::from("./gatewright-data"));
        assert_eq!(up.shutdown.deadline(), Duration::from_secs(30));
        assert!(!up.demo && up.admin.admin_tls.is_none() && up.traffic.proxy_tls.is_none());
    }

    #[cfg(all(feature = "control-plane", feature = "gateway"))]
    #[test]
    fn mistakes_on_the_command_line_are_usage_errors() {
        for wrong in [
            vec!["up", "--workers", "0"],
            vec!["up", "--proxy", "9080"],
            vec!["up", "--admin-key", ""],
            vec!["up", "--log", "loud=loudest"],
            vec!["up", "--no-such-flag"],
            vec!["up", "--access-log", "-", "--access-log-format", "$status $stauts"],
            vec!["up", "--access-log", "-", "--access-log-sample", "1.5"],
            vec!["up", "--access-log-sample", "0.5"],
            vec!["gateway", "--control-plane", "http://127.0.0.1:7943"],
            vec!["gateway", "--control-plane", "https://cp.example.com", "--token", "t"],
            vec!["gateway", "--control-plane", "https://h:1", "--certificate", "c", "--key", "k"],
            vec!["gateway", "--control-plane", "https://h:1", "--token", "t", "--key", "k"],
            vec!["gateway", "--config", "c", "--control-plane", "http://h:1", "--token", "t"],
            vec!["gateway", "--config", "c", "--token", "t"],
            vec!["gateway", "--token", "t"],
            vec!["gateway-group", "add-instance", "--days", "10"],
            vec!["gateway", "--control-plane", "http://h:1", "--token", "t", "--token-file", "f"],
            vec!["publish", "pets"],
            vec!["publish", "pets@1.0.0", "--wait", "soon"],
            vec!["quick", "127.0.0.1:3000"],
            vec!["quick", "http://127.0.0.1:3000", "--path", "orders"],
            vec!["explain", "--header", "no-colon"],
            vec!["explain", "--requests", "r.jsonl"],
            vec!["explain", "--config", "c", "--requests", "r.jsonl", "--path", "/"],
            vec!["explain", "--service-version", "pets"],
            vec!["explain", "-o", "xml"],
            vec!["expression"],
            vec!["up", "--database-url", "mysql://u:p@h/d"],
            vec!["store", "migrate", "--from", "sqlite://a.db"],
            vec!["store", "backup"],
            vec!["completions", "cmd.exe"],
            vec!["up", "--audit-retention", "60"],
            vec!["up", "--head-timeout", "0"],
            vec!["up", "--head-bytes-max", "100"],
            vec!["up", "--trusted-addresses", "10.0.0.0/40"],
            vec!["up", "--proxy-protocol", "status"],
            vec!["up", "--audit-retention", "0d"],
            vec!["up", "--admin-tls", "--admin-tls-certificate", "c.pem"],
            vec!["up", "--admin-tls-certificate", "c.pem", "--admin-tls-key", "k.pem"],
            vec!["serve"],
        ] {
            let parsed = Arguments::try_parse_from(["gatewright"].iter().chain(&wrong));
            assert_eq!(parsed.expect_err(&wrong.join(" ")).exit_code(), 2, "{wrong:?}");
        }
    }

    #[cfg(feature = "control-plane")]
    #[test]
    fn tls_is_served_where_it_is_asked_for_and_the_log_kept_as_long() {
        for (line, address, seconds) in [
            (&["--admin-tls"][..], Some("127.0.0.1:7443"), 60 * 86_400),
            (&["--admin-tls", "0.0.0.0:443", "--audit-retention", "36h"], Some("0.0.0.0:443"), 36 * 3600),
            (&[], None, 60 * 86_400),
        ] {
            let line = ["gatewright", "control-plane"].iter().chain(line);
            let Command::ControlPlane(arguments) = Arguments::try_parse_from(line).unwrap().command else {
                panic!("not `control-plane`");
            };
            assert_eq!(arguments.admin.admin_tls.map(|found| found.to_string()).as_deref(), address);
            assert_eq!(arguments.admin.audit_retention, Duration::from_secs(seconds));
        }
    }

    #[cfg(feature = "control-plane")]
    #[test]
    fn a_path_prefix_loses_its_closing_slash() {
        for (written, meant) in [
            ("/orders", Ok("/orders")),
            ("/a/b//", Ok("/a/b")),
            ("/", Ok("/")),
            ("x", Err(())),
            ("/a b", Err(())),
        ] {
            assert_eq!(path_prefix(written).as_deref().map_err(|_| ()), meant, "{written}");
        }
    }
}
