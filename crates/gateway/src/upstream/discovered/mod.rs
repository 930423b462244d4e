//! Upstreams whose nodes a service registry names.
//!
//! Each service that an upstream looks for is followed by one task on the background runtime, however many upstreams
//! want it. Whenever its nodes change, the upstreams are compiled again with them, off the request path: a node that
//! stays is taken over as it is, with its health and its connections, and what changed is put on the [`table`], where a
//! request finds it as cheaply as any other upstream. A registry that cannot be asked changes nothing.
//!
//! * [`table`]: what requests read.
//! * [`kept`]: the last good nodes, over a restart.
//! * [`probes`]: whether registries are there.
//! * [`registries`]: the registries of the group, and which of them is meant.

pub(crate) mod kept;
pub(crate) mod probes;
pub(crate) mod registries;
pub(crate) mod table;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use gatewright_discovery::follow::{Known, follow};
use gatewright_model::resource::group_object::GroupObject;
use gatewright_model::resource::service_registry::Wanted;
use gatewright_model::resource::upstream as resource;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::{Materials, Reachable, Upstream};
use crate::proxy::reject::RejectReason;
use crate::source::cache::SealedFile;
use registries::Registries;
use table::{Board, Slot};

/// How long a configuration waits for the first answers of registries before it is served: a request should not meet
/// an upstream of which nobody has said anything yet, and a registry that is away must not hold up everything else.
const FIRST_ANSWERS_TIMEOUT: Duration = Duration::from_secs(2);

/// The services that the process follows.
pub(crate) struct Discovery {
    runtime: Handle,
    board: Board,
    services: Services,
    /// What the process before knew of services that nobody has wanted yet.
    kept: Mutex<HashMap<Wanted, Known>>,
}

type Services = Arc<Mutex<HashMap<Wanted, Weak<Service>>>>;

/// A service that is followed for as long as an upstream wants it.
pub(crate) struct Service {
    wanted: Wanted,
    known: watch::Receiver<Known>,
    services: Weak<Mutex<HashMap<Wanted, Weak<Service>>>>,
    task: AbortHandle,
}

impl Discovery {
    /// Follows on `runtime` and puts what comes of it on `board`.
    pub(crate) fn new(runtime: Handle, board: Board) -> Self {
        Self { runtime, board, services: Services::default(), kept: Mutex::default() }
    }

    /// Begins with the nodes that are kept in `file`, and keeps there what becomes known, until `stopping`.
    pub(crate) fn keep_on(&self, file: SealedFile, stopping: watch::Receiver<bool>) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept::load(&file);
        self.runtime.spawn(kept::keep(file, Arc::clone(&self.services), stopping));
    }

    /// The upstream that is `written`, with the nodes of what it wants.
    pub(super) fn upstream(
        &self,
        wanted: Wanted,
        written: &resource::Upstream,
        client_certificate: Option<&Arc<GroupObject>>,
        materials: &Materials,
    ) -> Discovered {
        let service = self.service(wanted);
        let slot = Arc::new(self.board.slot());
        let compiling = Compiling {
            written: written.clone(),
            client_certificate: client_certificate.cloned(),
            materials: materials.clone(),
            slot: Arc::clone(&slot),
        };
        let mut known = service.known.clone();
        let nodes = known.borrow_and_update().nodes.clone();
        compiling.compile(nodes.as_deref());
        let task = self.runtime.spawn(compiling.keep(known, nodes)).abort_handle();
        Discovered { service, slot, task }
    }

    fn service(&self, wanted: Wanted) -> Arc<Service> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(service) = services.get(&wanted).and_then(Weak::upgrade) {
            return service;
        }
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&wanted);
        let (sender, known) = watch::channel(kept.unwrap_or_default());
        let task = self.runtime.spawn(watching(wanted.clone(), self.board.registries(), sender));
        let service = Arc::new(Service {
            wanted: wanted.clone(),
            known,
            services: Arc::downgrade(&self.services),
            task: task.abort_handle(),
        });
        services.insert(wanted, Arc::downgrade(&service));
        service
    }

    /// Waits a moment until each service that is wanted has been answered or refused once.
    pub(crate) async fn first_answers(&self) {
        let known = self.services().into_iter().map(|service| service.known.clone());
        let known: Vec<_> = known.filter(|known| !known.borrow().is_settled()).collect();
        let settled = async {
            for mut known in known {
                // An error means that nobody wants it any more.
                let _ = known.wait_for(Known::is_settled).await;
            }
        };
        if tokio::time::timeout(FIRST_ANSWERS_TIMEOUT, settled).await.is_err() {
            tracing::warn!("a configuration is served before every service registry has answered");
        }
    }

    /// Every service that is followed, in a stable order.
    pub(crate) fn services(&self) -> Vec<Arc<Service>> {
        followed(&self.services)
    }
}

fn followed(services: &Services) -> Vec<Arc<Service>> {
    let services = services.lock().unwrap_or_else(PoisonError::into_inner);
    let mut followed: Vec<_> = services.values().filter_map(Weak::upgrade).collect();
    drop(services);
    followed.sort_by(|one, other| one.wanted.cmp(&other.wanted));
    followed
}

impl Service {
    /// What is looked for.
    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// What is known of it.
    pub(crate) fn known(&self) -> Known {
        self.known.borrow().clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
        let Some(services) = self.services.upgrade() else { return };
        let mut services = services.lock().unwrap_or_else(PoisonError::into_inner);
        if services.get(&self.wanted).is_some_and(|service| service.strong_count() == 0) {
            services.remove(&self.wanted);
        }
    }
}

/// Follows one service, whichever registry that is at the time. What is known outlives a change of the registry.
async fn watching(
    wanted: Wanted,
    mut registries: watch::Receiver<Option<Arc<Registries>>>,
    known: watch::Sender<Known>,
) {
    loop {
        // An error means that the process ends.
        let Ok(now) = registries.wait_for(Option::is_some).await.map(|now| now.clone()) else { return };
        let found = now.as_deref().map(|registries| registries.find(&wanted));
        let Some(found) = found else { continue };
        let following = async {
            let watch = found.clone().and_then(|registry| registry.watch(&wanted));
            match watch {
                Ok(watch) => follow(watch, &known).await,
                Err(trouble) => {
                    tracing::error!(service = %wanted.name, reason = %trouble, "a service cannot be looked for; its last good nodes stay");
                    known.send_modify(|known| known.fail(trouble));
                    std::future::pending().await
                }
            }
        };
        let other = async {
            while registries.changed().await.is_ok() {
                let is_same = match (registries.borrow().as_deref().map(|now| now.find(&wanted)), &found) {
                    (Some(Ok(now)), Ok(before)) => Arc::ptr_eq(&now, before),
                    (Some(Err(now)), Err(before)) => now == *before,
                    (None, _) => true,
                    _ => false,
                };
                if !is_same {
                    return;
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            () = following => {}
            () = other => {}
        }
    }
}

/// An upstream whose nodes come from a registry.
pub(crate) struct Discovered {
    service: Arc<Service>,
    slot: Arc<Slot>,
    task: AbortHandle,
}

impl Discovered {
    /// Where it stands on the table.
    pub(crate) fn number(&self) -> usize {
        self.slot.number()
    }

    /// It with the nodes of this moment.
    pub(crate) fn now(&self) -> Reachable {
        self.slot.now()
    }

    /// The service whose nodes it has.
    pub(crate) fn service(&self) -> &Service {
        &self.service
    }
}

impl Drop for Discovered {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What an upstream is compiled of, again and again.
struct Compiling {
    written: resource::Upstream,
    client_certificate: Option<Arc<GroupObject>>,
    materials: Materials,
    slot: Arc<Slot>,
}

impl Compiling {
    /// Compiles the upstream whenever the nodes change, `nodes` being those it has.
    async fn keep(self, mut known: watch::Receiver<Known>, mut nodes: Option<Arc<[resource::Node]>>) {
        // An error means that nobody follows the service any more.
        while known.changed().await.is_ok() {
            let now = known.borrow_and_update().nodes.clone();
            let is_same = match (&now, &nodes) {
                (Some(now), Some(before)) => Arc::ptr_eq(now, before),
                (now, before) => now.is_none() && before.is_none(),
            };
            if !is_same {
                nodes = now;
                self.compile(nodes.as_deref());
            }
        }
    }

    fn compile(&self, nodes: Option<&[resource::Node]>) {
        let before = self.slot.now().ok();
        let certificate = self.client_certificate.as_deref();
        let compiled = match nodes {
            None => Err(RejectReason::NodesUnknown),
            Some(nodes) => Upstream::compile_with(
                (&self.written, nodes),
                certificate,
                &self.materials,
                before.as_deref(),
            ),
        };
        self.slot.put(compiled.map(Arc::new));
    }
}

#[cfg(test)]
mod tests;
