//! `gatewright control-plane`: the admin API, and the configuration that gateways follow.

use std::sync::Arc;

use gatewright_control_plane::{AdminTls, ControlPlane, Settings};
use gatewright_model::rehearsal::Rehearse;

use super::Failure;
use crate::announce;
use crate::arguments;
use crate::signals::{self, Signals};

/// Runs a control plane until it is told to stop.
pub(crate) async fn run(arguments: arguments::ControlPlane) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    signals::decline_upgrade()?;
    let settings = settings(&arguments.data, &arguments.database, &arguments.admin, Some(arguments.sync));
    let control_plane = Box::pin(gatewright_control_plane::start(settings)).await?;

    announce_admin(&control_plane);
    if let Some(address) = control_plane.sync_address() {
        announce::listener("sync", format_args!("https://{address}"));
    }
    let created = control_plane.created_secrets();
    let token = ("instance token", "instance-token", &created.instance_token);
    announce_secrets(&control_plane, &arguments.data, &[token]);
    announce::ready();

    let outcome = signals.run(std::future::ready(Ok(()))).await;
    signals.stop(control_plane.stop(arguments.shutdown.deadline())).await?;
    outcome
}

/// What the flags mean to a control plane.
pub(super) fn settings(
    data: &arguments::DataDirectory,
    database: &arguments::Database,
    admin: &arguments::AdminListener,
    sync: Option<std::net::SocketAddr>,
) -> Settings {
    Settings {
        data_dir: data.data_dir.clone(),
        database: database.database_url.clone(),
        admin: admin.admin,
        sync,
        admin_password: admin.admin_password.clone(),
        admin_key: admin.admin_key.clone(),
        rehearsal: rehearsal(),
        admin_tls: admin.admin_tls.map(|address| AdminTls {
            address,
            certificate: admin.admin_tls_certificate.clone().zip(admin.admin_tls_key.clone()),
        }),
        api_version: admin.api_version.clone(),
        audit_retention: admin.audit_retention,
        secret_key: data.secret_key.clone(),
        secret_key_file: data.secret_key_file.clone(),
    }
}

/// What lets the control plane explain how gateways match, where the gateway is part of the executable.
fn rehearsal() -> Option<Arc<dyn Rehearse>> {
    #[cfg(feature = "gateway")]
    return Some(Arc::new(gatewright_gateway::rehearsal::Rehearsal));
    #[cfg(not(feature = "gateway"))]
    None
}

/// Prints where the admin API answers.
pub(super) fn announce_admin(control_plane: &ControlPlane) {
    announce::listener("admin API", format_args!("http://{}", control_plane.admin_address()));
    if let Some(address) = control_plane.admin_tls_address() {
        announce::listener("admin TLS", format_args!("https://{address}"));
    }
}

/// Prints the administrator's secrets and `further` ones, as far as this start made them at random.
pub(super) fn announce_secrets(
    control_plane: &ControlPlane,
    data: &arguments::DataDirectory,
    further: &[(&str, &str, &Option<String>)],
) {
    let created = control_plane.created_secrets();
    let mut secrets = vec![
        ("administrator password", "admin-password", &created.admin_password),
        ("administrator key", "admin-key", &created.admin_key),
    ];
    secrets.extend_from_slice(further);
    announce::secrets(&secrets, &data.data_dir);
}
