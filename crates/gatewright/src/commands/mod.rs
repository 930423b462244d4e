//! The commands, one file each, and what can go wrong with them.
//!
//! A command hands back a [`Failure`] whose message is the one line a person sees: what failed, where, and what to
//! do about it. Only `main` turns it into an exit code.

#[cfg(feature = "control-plane")]
pub(crate) mod audit;
#[cfg(feature = "control-plane")]
pub(crate) mod canary;
pub(crate) mod completions;
#[cfg(feature = "control-plane")]
pub(crate) mod control_plane;
#[cfg(feature = "control-plane")]
pub(crate) mod diff;
pub(crate) mod explain;
pub(crate) mod expression;
#[cfg(feature = "gateway")]
pub(crate) mod gateway;
#[cfg(feature = "control-plane")]
pub(crate) mod gateway_group;
mod lines;
#[cfg(feature = "control-plane")]
pub(crate) mod openapi;
#[cfg(feature = "control-plane")]
pub(crate) mod preview;
#[cfg(feature = "control-plane")]
pub(crate) mod publish;
#[cfg(feature = "control-plane")]
pub(crate) mod quick;
#[cfg(feature = "control-plane")]
pub(crate) mod release_set;
#[cfg(feature = "control-plane")]
pub(crate) mod store;
#[cfg(all(feature = "control-plane", feature = "gateway"))]
pub(crate) mod up;
#[cfg(feature = "gateway")]
pub(crate) mod validate;

use std::future::Future;
use std::io;

use tokio::runtime::Builder;

/// Threads for everything that is not a client request: the admin API, the store, the watch.
const RUNTIME_THREADS: usize = 2;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[cfg(feature = "control-plane")]
    #[error(transparent)]
    ControlPlane(#[from] gatewright_control_plane::StartError),
    #[cfg(feature = "gateway")]
    #[error(transparent)]
    Gateway(#[from] gatewright_gateway::StartError),
    #[cfg(feature = "control-plane")]
    #[error(transparent)]
    Admin(#[from] crate::admin_client::AdminError),
    /// A publish is not served everywhere in time.
    #[cfg(feature = "control-plane")]
    #[error("it is published, but {lagging} instances do not serve all of it (--wait)")]
    NotServed { lagging: usize },
    /// The steps of a canary cannot be read.
    #[cfg(feature = "control-plane")]
    #[error("--steps: {reason}")]
    Steps { reason: String },
    /// The audit log is not what was written.
    #[cfg(feature = "control-plane")]
    #[error("the chain of the audit log is broken: {reason}")]
    ChainBroken { reason: String },
    #[cfg(feature = "control-plane")]
    #[error(transparent)]
    Upkeep(#[from] gatewright_control_plane::upkeep::UpkeepError),
    #[cfg(feature = "control-plane")]
    #[error(transparent)]
    Quick(#[from] quick::Refusal),
    #[cfg(feature = "control-plane")]
    #[error(transparent)]
    Openapi(#[from] openapi::Refusal),
    #[cfg(feature = "control-plane")]
    #[error(transparent)]
    Preview(#[from] preview::Unreadable),
    #[error("cannot start {what}: {source}")]
    Start { what: &'static str, source: io::Error },
    #[cfg(feature = "gateway")]
    #[error(transparent)]
    ConfigFile(#[from] gatewright_gateway::source::file::LoadError),
    #[cfg(feature = "gateway")]
    #[error(transparent)]
    Tls(#[from] crate::remote::TlsError),
    #[cfg(feature = "control-plane")]
    #[error("cannot write {path} (--certificate-dir): {source}", path = path.display())]
    CertificateFile { path: std::path::PathBuf, source: io::Error },
    #[cfg(feature = "gateway")]
    #[error("cannot read the instance token from {path} (--token-file): {source}", path = path.display())]
    TokenFile { path: std::path::PathBuf, source: io::Error },
    #[error(transparent)]
    Explain(#[from] explain::Refusal),
    #[error(transparent)]
    Lines(#[from] lines::LinesError),
    /// No key was given and none is kept.
    #[cfg(feature = "control-plane")]
    #[error(
        "no admin key: set GATEWRIGHT_ADMIN_KEY (or --admin-key), or name the data directory of the control plane with --data-dir; {path}: {source}",
        path = path.display()
    )]
    NoAdminKey { path: std::path::PathBuf, source: io::Error },
    #[error("stopped at once by a second signal ({signal}); requests in flight were cut off")]
    StoppedAtOnce { signal: &'static str },
}

/// Runs a command that serves or waits, until it ends by itself or by signals.
#[cfg(any(feature = "control-plane", feature = "gateway"))]
pub(crate) fn serve(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(RUNTIME_THREADS).enable_all().build();
    let runtime = runtime.map_err(|source| Failure::Start { what: "the runtime", source })?;
    let outcome = runtime.block_on(command);
    // What still runs had its deadline; waiting for it now would be waiting without one.
    runtime.shutdown_background();
    outcome
}

/// A client of the admin API with the key that was given, or with the one in the data directory.
#[cfg(feature = "control-plane")]
fn admin_client(access: &crate::arguments::AdminAccess) -> Result<crate::admin_client::AdminClient, Failure> {
    let key = match &access.admin_key {
        Some(key) => key.clone(),
        None => {
            let path = access.data.data_dir.join("admin-key");
            match std::fs::read_to_string(&path) {
                Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
                Ok(_) => {
                    return Err(Failure::NoAdminKey { path, source: io::Error::other("the file is empty") });
                }
                Err(source) => return Err(Failure::NoAdminKey { path, source }),
            }
        }
    };
    Ok(crate::admin_client::AdminClient::new(&access.admin_url, key)?)
}
