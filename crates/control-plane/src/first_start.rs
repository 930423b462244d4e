//! What a first start creates: the administrator, its access token, the group `default` and an instance token.
//!
//! It is one transaction, so it happens once or not at all; random secrets are on disk before it is committed, so
//! that an interruption at any moment leaves either a usable control plane or another first start.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use gatewright_model::id::GatewayGroupId;
use gatewright_model::resource::AsSent;
use gatewright_model::resource::gateway_group::{self, GatewayGroup, GatewayGroupKind};

use crate::app::{
    ACCESS_TOKEN_PREFIX, ADMIN, Authority, Digest, World, instance_token_new, password_hash, password_new,
    token_new,
};
use crate::config::{CreatedSecrets, Settings};
use crate::store::{NewAccessToken, PasswordState, Store, StoreError, UserRow};

/// The file in the data directory that keeps the generated password of the administrator.
pub(crate) const ADMIN_PASSWORD_FILE: &str = "admin-password";

/// Why a first start failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FirstStartError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    File(#[from] io::Error),
    #[error("the password cannot be hashed: {0}")]
    Password(#[from] argon2::password_hash::Error),
}

/// Creates what a first start needs; on any later start it creates nothing.
pub(crate) async fn first_start(
    store: &Store,
    world: &World,
    settings: &Settings,
    authority: &Authority,
) -> Result<CreatedSecrets, FirstStartError> {
    let mut tx = store.write().await?;
    if tx.user_named(ADMIN).await?.is_some() {
        return Ok(CreatedSecrets::default());
    }
    let given = |secret: &Option<String>| secret.clone().filter(|secret| !secret.is_empty());
    let (given_password, given_key) = (given(&settings.admin_password), given(&settings.admin_key));
    let created = CreatedSecrets {
        admin_password: given_password.is_none().then(|| password_new(world)),
        admin_key: given_key.is_none().then(|| token_new(world, ACCESS_TOKEN_PREFIX)),
        instance_token: Some(instance_token_new(world, &authority.pin())),
    };
    let password = given_password.or_else(|| created.admin_password.clone()).unwrap_or_default();
    let key = given_key.or_else(|| created.admin_key.clone()).unwrap_or_default();
    let instance_token = created.instance_token.clone().unwrap_or_default();

    let stamp = tx.stamp(world.now()).await?;
    let admin = UserRow {
        id: world.id(),
        username: ADMIN.to_owned(),
        password_hash: password_hash(world, &password)?,
        password_state: if created.admin_password.is_some() {
            PasswordState::Generated
        } else {
            PasswordState::Chosen
        },
    };
    tx.user_insert(stamp, &admin).await?;
    let key_id: String = world.id();
    let digest = Digest::of(&key);
    let token = NewAccessToken {
        id: &key_id,
        user_id: &admin.id,
        name: "first start",
        sha256: digest.as_str(),
        expires_at: 0,
    };
    tx.access_token_insert(stamp, &token).await?;
    let group = default_group();
    tx.gateway_group_insert(stamp, &group, &default_group_content()).await?;
    let token_id: String = world.id();
    let digest = Digest::of_instance_token(&instance_token);
    tx.instance_token_insert(stamp, &token_id, &group, digest.as_str()).await?;

    keep_secrets(&settings.data_dir, &created)?;
    tx.commit().await?;
    Ok(created)
}

/// The id of the group that the first start creates.
pub(crate) fn default_group() -> GatewayGroupId {
    gateway_group::DEFAULT_ID.parse().unwrap_or_else(|error| unreachable!("`default` is an id: {error}"))
}

fn default_group_content() -> GatewayGroup {
    GatewayGroup {
        name: gateway_group::DEFAULT_ID.to_owned(),
        desc: AsSent::default(),
        labels: AsSent::default(),
        kind: GatewayGroupKind::default(),
        settings: None,
        sampling: None,
    }
}

/// Creates the data directory, readable by its owner only, unless it exists.
pub(crate) fn directory_create(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a file that only its owner can read, creating it if needed.
pub(crate) fn file_open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).read(true).mode(0o600).open(path)
}

fn keep_secrets(data_dir: &Path, created: &CreatedSecrets) -> io::Result<()> {
    let secrets = [
        (ADMIN_PASSWORD_FILE, &created.admin_password),
        ("admin-key", &created.admin_key),
        ("instance-token", &created.instance_token),
    ];
    // Beside PostgreSQL it may not be there yet: nothing else is kept in it.
    directory_create(data_dir)?;
    for (name, secret) in secrets {
        if let Some(secret) = secret {
            keep_secret(data_dir, name, secret)?;
        }
    }
    // The names must be as durable as the contents.
    File::open(data_dir)?.sync_all()
}

/// Writes beside and renames, so that the file holds the whole secret or does not exist.
pub(crate) fn keep_secret(data_dir: &Path, name: &str, secret: &str) -> io::Result<()> {
    let beside = data_dir.join(format!("{name}.new"));
    let mut file = file_open_private(&beside)?;
    file.set_len(0)?;
    file.write_all(secret.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::rename(&beside, data_dir.join(name))
}
