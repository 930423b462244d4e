//! Keeps the nodes of a named service current and browses service registries: extension point 2, one file per
//! kind of registry.
//!
//! A [`Registry`] is one directory outside, and a [`Watch`] is what it says of one service: each answer is the complete
//! set of nodes, or a [`Trouble`]. Nobody here knows who asks. [`follow`] is the one loop around all watches: an error
//! never takes nodes away, an empty answer of a registry that is well does.
//!
//! A good addition: a file with a type that is a [`Registry`], an arm in [`connect`], its configuration in
//! `model::resource::service_registry`, and a test that replays the protocol with its errors.

pub mod browse;
pub mod follow;
pub mod outside;
pub mod tls;

mod consul;
mod dns;
mod eureka;
mod kubernetes;
mod nacos;

mod http;
#[cfg(test)]
mod testing;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use gatewright_model::resource::service_registry::{RegistryKind, ServiceRegistry, Wanted};
use gatewright_model::resource::upstream::Node;

use browse::{Found, Place};

pub use outside::Outside;

/// What is waited for outside.
pub type Waiting<'w, T> = Pin<Box<dyn Future<Output = T> + Send + 'w>>;

/// One directory of nodes.
pub trait Registry: Send + Sync {
    /// What it says of one service. Nothing is asked before the watch is.
    ///
    /// # Errors
    /// When such a service cannot be looked for here.
    fn watch(self: Arc<Self>, wanted: &Wanted) -> Result<Box<dyn Watch>, Trouble>;

    /// Looks whether the registry is there and lets itself be asked.
    fn probe(&self) -> Waiting<'_, Result<(), Trouble>>;

    /// What there is at a place of the registry.
    fn browse<'b>(&'b self, place: &'b Place) -> Waiting<'b, Result<Found, Trouble>> {
        let unknown = format!("there is no {place} in a service registry of this type");
        Box::pin(std::future::ready(Err(Trouble::new(unknown))))
    }
}

/// What a registry says of one service, again and again.
pub trait Watch: Send {
    /// The complete set of nodes: at once when it is asked first or after an error, and from then on whenever there may
    /// be something new. It can be dropped at any time and asked again.
    fn next(&mut self) -> Waiting<'_, Result<Vec<Node>, Trouble>>;
}

/// Why a registry did not say what it was asked: it is not there, refuses, or speaks otherwise. For people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Trouble(Arc<str>);

impl Trouble {
    /// For this reason, in which no secret stands.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string().into())
    }
}

/// The registry that `registry` describes. Nothing is asked yet.
///
/// # Errors
/// When none can be made of the description.
pub fn connect(registry: &ServiceRegistry, outside: &Outside) -> Result<Arc<dyn Registry>, Trouble> {
    let lacks = |name: &str| Trouble::new(format!("{name} is missing"));
    Ok(match registry.kind {
        RegistryKind::Consul => {
            let config = registry.consul_config.as_ref().ok_or_else(|| lacks("consul_config"))?;
            Arc::new(consul::Consul::new(config, outside)?)
        }
        RegistryKind::Dns => {
            let config = registry.dns_config.clone().unwrap_or_default();
            Arc::new(dns::Dns::new(&config, outside)?)
        }
        RegistryKind::Eureka => {
            let config = registry.eureka_config.as_ref().ok_or_else(|| lacks("eureka_config"))?;
            Arc::new(eureka::Eureka::new(config, outside)?)
        }
        RegistryKind::Kubernetes => {
            let config = registry.kubernetes_config.as_ref().ok_or_else(|| lacks("kubernetes_config"))?;
            Arc::new(kubernetes::Kubernetes::new(config, outside)?)
        }
        RegistryKind::Nacos => {
            let config = registry.nacos_config.as_ref().ok_or_else(|| lacks("nacos_config"))?;
            Arc::new(nacos::Nacos::new(config, outside)?)
        }
    })
}

/// Whether something has what is wanted of it: for each name one of the values.
fn has_metadata<'m>(wanted: &[(String, Vec<String>)], value: impl Fn(&str) -> Option<&'m str>) -> bool {
    wanted
        .iter()
        .all(|(name, values)| value(name).is_some_and(|value| values.iter().any(|wanted| wanted == value)))
}
