//! The rules: who may do what to which object, and what follows from it.
//!
//! Every operation is a function `noun_verb`. It asks `caller.must` first, does its work in one transaction of the
//! store, and answers with what is true afterwards or with a [`Refusal`]; there is nothing in between.
//! Clock, ids and randomness come in through [`World`], so that tests are exact.

mod caller;
pub(crate) mod document;
mod password;
mod patch;
mod refusal;
mod throttle;
mod token;
pub(crate) mod user_document;
mod world;

mod access_token;
mod audit_log;
mod authority;
mod blast_radius;
mod canary;
mod conflict_check;
mod explain;
pub(crate) mod group_document;
mod group_object;
mod object_kind;

mod core_schema;
mod core_usage;
mod gateway_group;
mod group_route;
mod group_service;
mod instance;
mod instance_token;
mod label;
mod openapi;
pub(crate) mod openapi_document;
mod plugin;
mod preview;
pub(crate) mod preview_document;
mod published_service;
mod release_set;
pub(crate) mod release_set_document;
mod role;
pub(crate) mod rollout;
mod route_template;
mod runtime_configuration;
mod service_diff;
mod service_publish;
mod service_registry;
mod service_template;
mod service_upstream;
mod service_version;
mod session;
mod ssl;
mod stream_claim;
mod user;
mod validate;

#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod scale;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use audit_log::{Broken, NAME_BYTES_MAX, Verified, audit_log_note_body, cut};
pub(crate) use authority::{Authority, INSTANCE_DAYS_DEFAULT, INSTANCE_DAYS_MAX, InstanceCertificate};
pub(crate) use blast_radius::BlastRadius;
pub(crate) use caller::{ADMIN, Action, Caller, Credentials, SUPER_ADMIN};
pub(crate) use canary::CanaryEnd;
pub(crate) use core_schema::core_schema;
pub(crate) use document::Warnings;
pub(crate) use explain::Explained;
pub(crate) use group_object::{GroupObject, Object, Shelf};
pub(crate) use group_route::RouteContent;
pub(crate) use instance::{
    AWAIT_MAX, Applied, Instance, InstanceFilter, InstanceStatus, quarantine_sentence,
};
pub(crate) use instance_token::{Proof, Proved};
pub(crate) use openapi::Imported;
pub(crate) use password::{password_hash, password_new};
pub(crate) use patch::{Patch, json_depth};
pub(crate) use plugin::{plugin_list, plugin_metadata_default, plugin_schema, plugin_summary_list};
pub(crate) use preview::{Preview, ServicePreview};
pub(crate) use refusal::Refusal;
pub(crate) use rollout::{Rollout, RolloutEnd};
pub(crate) use route_template::RouteTemplate;
pub(crate) use service_publish::PublishOutcome;
pub(crate) use service_registry::{RegistryCheckFilter, RegistryHealth, secrets_mask};
pub(crate) use service_version::paged;
pub(crate) use session::SESSION_SECONDS;
pub(crate) use ssl::validity;
pub(crate) use token::{Digest, instance_token_new, token_new};
pub(crate) use user::is_super_admin;
pub(crate) use validate::{InvalidDocument, ValidateWish, validate_parse};
pub(crate) use world::World;

use gatewright_model::id::GatewayGroupId;
use gatewright_model::rehearsal::Rehearse;
use tokio::sync::Semaphore;

use crate::distribution::{Counts, Feeds, Heads, Hints, Instances, Standings};
use crate::store::{Call, Store};
use throttle::Throttle;

/// What access tokens begin with.
pub(crate) const ACCESS_TOKEN_PREFIX: &str = "gw-";

/// How many passwords are verified at once: one costs tens of milliseconds and 19 MiB, so this is also what
/// guessing is slowed down to.
const PASSWORD_CHECKS_MAX: usize = 2;

/// The rules of the control plane over one store.
#[derive(Clone)]
pub(crate) struct App {
    parts: Arc<Parts>,
}

struct Parts {
    store: Store,
    world: World,
    hints: Hints,
    feeds: Feeds,
    standings: Standings,
    instances: Instances,
    heads: Heads,
    secrets: ProcessSecrets,
    rehearsal: Option<Arc<dyn Rehearse>>,
    password_checks: Semaphore,
    throttles: Throttles,
}

/// What may not fail too often.
struct Throttles {
    /// Wrong passwords of one user from one address.
    by_user: Throttle,
    /// Wrong passwords from one address.
    by_address: Throttle,
    /// Audit rows of callers nobody knows, from one address.
    unknown_rows: Throttle,
}

impl Throttles {
    fn new() -> Self {
        Self {
            by_user: Throttle::new(10, 300),
            by_address: Throttle::new(50, 300),
            unknown_rows: Throttle::new(1000, 60),
        }
    }
}

/// Secrets that live as long as the process and are stored nowhere.
pub(crate) struct ProcessSecrets {
    /// Admin keys, and whom they stand for.
    pub(crate) access_tokens: BTreeMap<Digest, String>,
    /// Instance tokens, and the group they belong to.
    pub(crate) instance_tokens: BTreeMap<Digest, GatewayGroupId>,
    /// Where the first start keeps the password of the administrator, until there is another one.
    pub(crate) admin_password_file: Option<PathBuf>,
    /// What signs for gateways and control planes; its key is in the store, encrypted.
    pub(crate) authority: Arc<Authority>,
}

#[cfg(test)]
impl ProcessSecrets {
    /// None but an authority that nobody keeps.
    pub(crate) fn of_a_test() -> Self {
        Self {
            access_tokens: BTreeMap::new(),
            instance_tokens: BTreeMap::new(),
            admin_password_file: None,
            authority: Authority::of_a_test(),
        }
    }
}

/// How often a change is begun that the database interrupts for the sake of others.
const ATTEMPTS_MAX: usize = 3;

/// Makes a change, and begins it again if the database interrupted it: nothing of it has happened then.
async fn persistently<T, F: Future<Output = Result<T, Refusal>>>(
    change: impl Fn() -> F,
) -> Result<T, Refusal> {
    for attempt in 1..ATTEMPTS_MAX {
        match change().await {
            Err(Refusal::Interrupted { reason }) => {
                tracing::warn!(attempt, reason, "a change was interrupted and begins again");
            }
            outcome => return outcome,
        }
    }
    change().await
}

/// Refuses a change of what the caller has not seen (`If-Match`); none: there is no object.
fn must_be_as_expected(noun: &'static str, id: &str, change_number: Option<i64>) -> Result<(), Refusal> {
    if Call::accepts(change_number) {
        return Ok(());
    }
    Err(Refusal::ChangedMeanwhile { noun, id: id.to_owned() })
}

impl App {
    pub(crate) fn new(
        store: Store,
        world: World,
        hints: Hints,
        secrets: ProcessSecrets,
        rehearsal: Option<Arc<dyn Rehearse>>,
    ) -> Self {
        let password_checks = Semaphore::new(PASSWORD_CHECKS_MAX);
        Self {
            parts: Arc::new(Parts {
                store,
                world,
                hints,
                feeds: Feeds::default(),
                standings: Standings::default(),
                instances: Instances::default(),
                heads: Heads::default(),
                secrets,
                rehearsal,
                password_checks,
                throttles: Throttles::new(),
            }),
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.parts.store
    }

    pub(crate) fn hints(&self) -> &Hints {
        &self.parts.hints
    }

    pub(crate) fn feeds(&self) -> &Feeds {
        &self.parts.feeds
    }

    pub(crate) fn counts(&self) -> &Counts {
        self.feeds().counts()
    }

    fn instances(&self) -> &Instances {
        &self.parts.instances
    }

    fn heads(&self) -> &Heads {
        &self.parts.heads
    }

    fn world(&self) -> &World {
        &self.parts.world
    }

    fn authority(&self) -> &Authority {
        &self.parts.secrets.authority
    }
}
