//! `gatewright gateway`: a gateway that follows a control plane elsewhere, or serves a file alone.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use gatewright_gateway::{Gateway, Settings, Source};
use gatewright_model::id::{GatewayGroupId, InstanceId};

use super::Failure;
use crate::arguments::{self, Joining};
use crate::remote::{CertificateFiles, Proof, Remote};
use crate::signals::{self, Signals};
use crate::{announce, client_limits, upgrade};

/// The folder in the data directory where plugins keep things.
pub(super) const PLUGINS: &str = "plugins";

/// Runs a gateway until it is told to stop.
pub(crate) async fn run(arguments: arguments::Gateway) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let origin = upgrade::Origin::of_this_process()?;
    let mut inheritance = upgrade::inheritance()?;
    client_limits::raise_descriptor_limit();
    let (settings, source) = match &arguments.joining.config {
        Some(path) => (standalone(&arguments.traffic, arguments.group), Source::File(path.clone())),
        None => joined(&arguments)?,
    };
    let gateway = match &mut inheritance {
        Some(inheritance) => gatewright_gateway::take_over(inheritance, settings, source)?,
        None => gatewright_gateway::start(settings, source)?,
    };
    signals::on_hangup(gateway.access_log_reopener())?;

    announce_listeners(&gateway);
    let replaced = Cell::new(false);
    let work = async {
        gateway.until_ready().await;
        if let Some(inheritance) = inheritance {
            let confirmed = inheritance.confirm();
            confirmed
                .map_err(|source| Failure::Start { what: "taking over from the old process", source })?;
        }
        upgrade::notify_ready();
        announce::ready();
        origin.until_replaced(&gateway).await;
        replaced.set(true);
        Ok(())
    };
    let outcome = signals.run_until(work).await;
    let deadline = arguments.shutdown.deadline();
    let stop = async {
        match replaced.get() {
            true => gateway.retire(deadline).await,
            false => gateway.stop(deadline).await,
        }
    };
    signals.stop(stop).await?;
    outcome
}

/// A gateway that follows a control plane.
fn joined(arguments: &arguments::Gateway) -> Result<(Settings, Source), Failure> {
    let proof = proof(&arguments.joining)?;
    let instance_token = match &proof {
        Proof::Token(token) => token.clone(),
        Proof::Certificate(_) => String::new(),
    };
    let remote = Remote::new(arguments.joining.control_plane.clone(), proof)?;
    let instance_id = gatewright_gateway::config::instance_id(&arguments.data_dir);
    let settings = Settings {
        data_dir: Some(arguments.data_dir.clone()),
        plugin_dir: Some(arguments.data_dir.join(PLUGINS)),
        ..settings(&arguments.traffic, arguments.group.clone(), instance_id, instance_token)
    };
    Ok((settings, Arc::new(remote).into()))
}

/// A gateway that serves a file, has nothing to prove, and keeps nothing: the file is what it keeps.
fn standalone(traffic: &arguments::TrafficListeners, group: GatewayGroupId) -> Settings {
    let instance_id =
        "standalone".parse().unwrap_or_else(|error| unreachable!("`standalone` is an id: {error}"));
    settings(traffic, group, instance_id, String::new())
}

/// What the flags mean to a gateway.
pub(super) fn settings(
    traffic: &arguments::TrafficListeners,
    gateway_group_id: GatewayGroupId,
    instance_id: InstanceId,
    instance_token: String,
) -> Settings {
    Settings {
        gateway_group_id,
        instance_id,
        instance_token,
        data_dir: None,
        plugin_dir: None,
        proxy: traffic.proxy,
        tls: traffic.tls(),
        status: traffic.status,
        workers: traffic.workers(),
        access_log: traffic.access_log.settings(),
        measures_plugins: traffic.measure_plugins,
        debug_token: traffic.debug_token.clone(),
        limits: traffic.clients.limits(),
        memory: traffic.clients.memory(),
        trust: traffic.clients.trust(),
        denied: traffic.denied(),
        stream_ports: traffic.clients.stream_ports.clone(),
    }
}

/// Prints where clients are answered, and where the gateway's status is.
pub(super) fn announce_listeners(gateway: &Gateway) {
    announce::listener("proxy", format_args!("http://{}", gateway.proxy_address()));
    if let Some(address) = gateway.proxy_tls_address() {
        announce::listener("proxy TLS", format_args!("https://{address}"));
    }
    announce::listener("status", format_args!("http://{}/status", gateway.status_address()));
}

fn proof(joining: &arguments::Joining) -> Result<Proof, Failure> {
    match joining {
        Joining { token: Some(token), .. } => Ok(Proof::Token(token.clone())),
        Joining { token_file: Some(path), .. } => Ok(Proof::Token(token_from_file(path)?)),
        Joining { certificate: Some(certificate), key: Some(key), ca: Some(authority), .. } => {
            let (certificate, key, authority) = (certificate.clone(), key.clone(), authority.clone());
            Ok(Proof::Certificate(CertificateFiles { certificate, key, authority }))
        }
        _ => unreachable!("the command line demands one of them"),
    }
}

fn token_from_file(path: &Path) -> Result<String, Failure> {
    let failure = |source| Failure::TokenFile { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(failure)?;
    let token = text.trim();
    if token.is_empty() {
        return Err(failure(std::io::Error::other("the file is empty")));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_that_cannot_be_used_is_named() {
        let error = token_from_file(Path::new("/no/such/token")).unwrap_err().to_string();
        assert!(error.contains("/no/such/token") && error.contains("--token-file"), "{error}");
    }
}
