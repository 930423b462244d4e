//! Preparing: services are compiled as they would be served, and thrown away.
//!
//! What does not compile is said, so that a control plane can leave everything as it is everywhere.

use std::sync::Arc;

use gatewright_model::protocol::{Prepared, QUARANTINED_NAMED_MAX, Quarantined as Named, REASON_LENGTH_MAX};
use gatewright_model::snapshot::{PublishedService, Snapshot};

use crate::live::LiveConfig;
use crate::live::compile;
use crate::upstream::Background;

/// Compiles `services` over what is served, off this runtime's async threads.
pub(super) async fn prepare(
    id: String,
    services: Vec<PublishedService>,
    (snapshot, live): (Arc<Snapshot>, Arc<LiveConfig>),
    background: Arc<Background>,
) -> Prepared {
    let compiling = tokio::task::spawn_blocking(move || {
        let mut candidate = Snapshot::clone(&snapshot);
        let ids: Vec<_> = services.iter().map(|service| service.service_id.to_string()).collect();
        candidate.services.extend(services.into_iter().map(|one| (one.service_id.clone(), Arc::new(one))));
        let (_, quarantined) = compile::compile(&live, &candidate, &background);
        let about_them = quarantined.into_iter().filter(|one| ids.iter().any(|id| id == one.what.id()));
        about_them.map(|one| (one.what.id().to_owned(), one.reason.to_string())).collect()
    });
    let found: Vec<(String, String)> =
        compiling.await.unwrap_or_else(|error| vec![(String::new(), error.to_string())]);
    let named = |(id, reason): (String, String)| Named {
        id,
        reason: reason.chars().take(REASON_LENGTH_MAX).collect(),
    };
    Prepared { id, complaints: found.into_iter().take(QUARANTINED_NAMED_MAX).map(named).collect() }
}
