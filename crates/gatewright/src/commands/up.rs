//! `gatewright up`: a control plane and one gateway of the group `default` in one process.
//!
//! The gateway gets its configuration like a remote one; only the transport is a pipe.

use std::sync::Arc;
use std::time::Duration;

use gatewright_control_plane::ControlPlane;
use gatewright_gateway::{Gateway, Settings};
use gatewright_model::resource::gateway_group;
use tokio::runtime::Handle;

use super::{Failure, control_plane, gateway};
use crate::arguments::Up;
use crate::demo::{self, Addresses};
use crate::in_process::InProcess;
use crate::signals::{self, Signals};
use crate::{announce, client_limits, probe};

/// Runs both halves until they are told to stop.
pub(crate) async fn run(arguments: Up) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    signals::decline_upgrade()?;
    client_limits::raise_descriptor_limit();
    let settings = control_plane::settings(&arguments.data, &arguments.database, &arguments.admin, None);
    let control_plane = Box::pin(gatewright_control_plane::start(settings)).await?;
    let gateway = match gateway_start(&arguments, &control_plane) {
        Ok(gateway) => gateway,
        Err(failure) => {
            // The next start will not make these secrets again, so this is the one time to show them.
            control_plane::announce_secrets(&control_plane, &arguments.data, &[]);
            control_plane.stop(Duration::ZERO).await;
            return Err(failure);
        }
    };

    signals::on_hangup(gateway.access_log_reopener())?;
    control_plane::announce_admin(&control_plane);
    gateway::announce_listeners(&gateway);
    control_plane::announce_secrets(&control_plane, &arguments.data, &[]);

    let outcome = signals.run(get_ready(&arguments, &control_plane, &gateway)).await;
    let deadline = arguments.shutdown.deadline();
    let stop = async {
        tokio::join!(gateway.stop(deadline), control_plane.stop(deadline));
    };
    signals.stop(stop).await?;
    outcome
}

fn gateway_start(arguments: &Up, control_plane: &ControlPlane) -> Result<Gateway, Failure> {
    let group = match gateway_group::DEFAULT_ID.parse() {
        Ok(group) => group,
        Err(error) => unreachable!("the id of the first gateway group: {error}"),
    };
    let token = control_plane.instance_token().to_owned();
    let instance_id = gatewright_gateway::config::instance_id(&arguments.data.data_dir);
    let settings = Settings {
        plugin_dir: Some(arguments.data.data_dir.join(gateway::PLUGINS)),
        ..gateway::settings(&arguments.traffic, group, instance_id, token)
    };
    let connector = InProcess::new(control_plane.watch_server(), Handle::current());
    Ok(gatewright_gateway::start(settings, Arc::new(connector))?)
}

async fn get_ready(arguments: &Up, control_plane: &ControlPlane, gateway: &Gateway) -> Result<(), Failure> {
    gateway.until_ready().await;
    if arguments.demo {
        let addresses = Addresses {
            admin: announce::reachable(control_plane.admin_address()),
            proxy: announce::reachable(gateway.proxy_address()),
        };
        let demo = demo::start(addresses, control_plane.operator_key().to_owned()).await?;
        probe::until_ok(demo.pet_url(), Some(demo::HOST)).await;
        let created = control_plane.created_secrets().admin_key.as_deref();
        demo.announce(&demo::key_to_paste(created, &arguments.data.data_dir));
    }
    announce::ready();
    Ok(())
}
