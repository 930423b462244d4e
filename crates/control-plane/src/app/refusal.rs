//! Why a call was refused: one variant per rule, each naming the thing, the place and the remedy.

use gatewright_model::validation::Violations;

use crate::store::StoreError;

/// Why a call was refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// Nobody is known by these credentials.
    #[error("missing or wrong credentials: send a valid access token in the header X-API-KEY")]
    Unauthenticated,
    /// Nobody has this name and this password; which of them is wrong is not said.
    #[error("the user name or the password is wrong")]
    WrongPassword,
    /// Too many wrong passwords.
    #[error("too many attempts with a wrong password; wait five minutes")]
    TooManyAttempts,
    /// The user has to choose a password first.
    #[error(
        "user `{username}` has to choose a password first: log in with POST /api/login, then send old_password and \
         new_password to PUT /api/password"
    )]
    PasswordDue {
        /// Who asked.
        username: String,
    },
    /// The root user stays what it is.
    #[error("user `admin` cannot be deleted, and nobody else may change its password or roles")]
    AdminProtected,
    /// The caller is known but may not do this.
    #[error("user `{username}` may not perform `{action}`")]
    Forbidden {
        /// Who asked.
        username: String,
        /// What was asked, as permission policies name it.
        action: &'static str,
    },
    /// The document breaks rules.
    #[error("{0}")]
    Invalid(#[from] Violations),
    /// A patch does not fit the document.
    #[error("the patch cannot be applied: {reason}")]
    PatchFailed {
        /// Which step, and why.
        reason: String,
    },
    /// There is no such object.
    #[error("{noun} `{id}` not found")]
    NotFound {
        /// What kind of object.
        noun: &'static str,
        /// Which one.
        id: String,
    },
    /// Another object has this id.
    #[error("{noun} `{id}` exists already; leave the id out, or change the object with PUT")]
    IdTaken {
        /// What kind of object.
        noun: &'static str,
        /// Which id.
        id: String,
    },
    /// Another object has this name.
    #[error("{noun} `{name}` exists already (id `{by}`); choose another name")]
    NameTaken {
        /// What kind of object.
        noun: &'static str,
        /// The name.
        name: String,
        /// Who has it.
        by: String,
    },
    /// The number was used before, and equal numbers mean equal behaviour.
    #[error("service `{service}` has a version `{version}` already{}; choose another number", active_note(.active.as_deref()))]
    VersionTaken {
        /// The service's name.
        service: String,
        /// The number.
        version: String,
        /// The number that is active in the group.
        active: Option<String>,
    },
    /// Only what ran here, or runs elsewhere, can be published again.
    #[error(
        "version `{version}` of service `{service}` was never published in gateway group `{group}` and is active in \
         no other group; publish a new version, synchronise one that is active somewhere, or insist with any_version"
    )]
    VersionNotRestorable {
        /// The service's name.
        service: String,
        /// The number.
        version: String,
        /// The group.
        group: String,
    },
    /// Gateways still serve it.
    #[error("service template `{id}` is published in gateway groups {groups}; unpublish it there first")]
    StillPublished {
        /// The service.
        id: String,
        /// Where, quoted and separated.
        groups: String,
    },
    /// Gateways that live could not serve it.
    #[error(
        "plugins are used that not every gateway of the group has, so upgrade or stop those without first: {instances}"
    )]
    PluginsLacking {
        /// Which instances lack which plugins.
        instances: String,
    },
    /// Not every instance could compile it, or said so in time.
    #[error("nothing was published, because not every gateway instance is prepared: {instances}")]
    NotPrepared {
        /// Which instances, and why.
        instances: String,
    },
    /// Two release sets at a time would each undo what the other was prepared for.
    #[error("another release set is being prepared for gateway group `{group}`; wait until it is done")]
    BeingPrepared {
        /// The group.
        group: String,
    },
    /// What was prepared is not what would be published.
    #[error(
        "gateway group `{group}` has changed while the release set was prepared; nothing was published, try again"
    )]
    ChangedWhilePreparing {
        /// The group.
        group: String,
    },
    /// Rolling back would undo somebody's later decision.
    #[error("release set `{id}` is not what runs any more: {services}; roll those back one by one")]
    ReleaseOvertaken {
        /// The set.
        id: String,
        /// What was published since.
        services: String,
    },
    /// There is nothing left to undo.
    #[error("release set `{id}` was rolled back already")]
    RolledBackAlready {
        /// The set.
        id: String,
    },
    /// What a group was then is not kept any more.
    #[error(
        "{asked} of gateway group `{group}` is not kept any more: the oldest that is kept is revision {oldest}, which \
         stood from {oldest_since} (unix seconds) on, and the newest is {newest}"
    )]
    PastForgotten {
        /// The group.
        group: String,
        /// Which revision or moment.
        asked: String,
        /// The oldest revision that is kept.
        oldest: u64,
        /// Since when it stood, in unix seconds.
        oldest_since: i64,
        /// The newest revision.
        newest: u64,
    },
    /// Nobody in this process knows how gateways match.
    #[error(
        "this control plane was built without the gateway and cannot explain requests; ask one that was built with it, \
         or run `gatewright explain --config FILE`"
    )]
    NoRehearsal,
    /// The caller wants to change what is not there any more.
    #[error(
        "{noun} `{id}` is not as If-Match says; read it again, and send the tag of what you want to change"
    )]
    ChangedMeanwhile {
        /// What kind of object.
        noun: &'static str,
        /// Which one.
        id: String,
    },
    /// The caller relies on a condition that means nothing here.
    #[error("this operation does not look at If-Match; leave the header out")]
    ConditionUnsupported,
    /// One key, two different calls.
    #[error(
        "Idempotency-Key `{key}` was used for a publish of something else; choose a new key for every publish"
    )]
    IdempotencyKeyReused {
        /// The key.
        key: String,
    },
    /// What a version holds never changes.
    #[error(
        "service `{service}` runs version `{version}` in this gateway group, and a version never changes: only its \
         name, description, labels and runtime configuration can be edited here; change the template and publish it"
    )]
    VersionImmutable {
        /// The service's name.
        service: String,
        /// The number.
        version: String,
    },
    /// A service of this id was written straight to the group.
    #[error(
        "service `{service}` is in gateway group `{group}` without a version; give it one with \
         source_gateway_group_id, or delete it there before a version of it is published"
    )]
    Unversioned {
        /// The service.
        service: String,
        /// The group.
        group: String,
    },
    /// A version is on its way there already.
    #[error(
        "service `{service}` has {kind} of version `{version}` in gateway group `{group}`; promote or abort it first"
    )]
    RolloutRuns {
        /// The service.
        service: String,
        /// The group.
        group: String,
        /// The version that is tried.
        version: String,
        /// Of what kind, with its article.
        kind: &'static str,
    },
    /// Another object has what only one may have.
    #[error("{noun} `{by}` of this gateway group has the same {what}; use that one, or delete it first")]
    Duplicate {
        /// What kind of object.
        noun: &'static str,
        /// What is the same.
        what: &'static str,
        /// The other object.
        by: String,
    },
    /// Other objects do not work without it.
    #[error("{noun} `{id}` is used by {by}; change or delete that first")]
    StillReferred {
        /// What kind of object.
        noun: &'static str,
        /// Which one.
        id: String,
        /// Who uses it.
        by: String,
    },
    /// A service registry was asked, and did not say.
    #[error("service registry `{id}` did not answer: {reason}")]
    RegistrySilent {
        /// Which one.
        id: String,
        /// What it did instead.
        reason: String,
    },
    /// Something is left in it.
    #[error("gateway group `{id}` still holds {contents}; delete that first")]
    GroupInUse {
        /// The group.
        id: String,
        /// What, and how many.
        contents: String,
    },
    /// Somebody else changed the same thing at the same time.
    #[error("the object was changed by somebody else at the same time; read it and try again")]
    Conflict,
    /// The store was lost while it was writing.
    #[error("the store did not confirm the change; look whether it was made before you try again")]
    Unconfirmed {
        /// For the log, not for the caller.
        reason: String,
    },
    /// The database undid the change for the sake of somebody else's.
    #[error("the change was interrupted by something else in the database; nothing was changed, try again")]
    Interrupted {
        /// For the log, not for the caller.
        reason: String,
    },
    /// The disk of the store is full.
    #[error("the disk of the store is full; nothing was changed, make room and try again")]
    StoreFull {
        /// For the log, not for the caller.
        reason: String,
    },
    /// The store does not answer.
    #[error("the store is unavailable; nothing was changed, try again")]
    Unavailable {
        /// For the log, not for the caller.
        reason: String,
    },
}

fn active_note(active: Option<&str>) -> String {
    active.map_or_else(String::new, |active| format!(" (`{active}` is active in the group)"))
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::Conflict,
            StoreError::Conflict { reason } => {
                tracing::warn!(reason, "a constraint of the store refused a change that the rules allowed");
                Self::Conflict
            }
            StoreError::Unavailable { reason } => Self::Unavailable { reason },
            StoreError::Interrupted { reason } => Self::Interrupted { reason },
            StoreError::Full { reason } => Self::StoreFull { reason },
            StoreError::ConditionUnread => Self::ConditionUnsupported,
            StoreError::Unconfirmed { reason } => Self::Unconfirmed { reason },
            StoreError::NulInText => Self::Invalid(Violations::one(
                "",
                "a text contains the character NUL, which cannot be stored",
            )),
        }
    }
}
