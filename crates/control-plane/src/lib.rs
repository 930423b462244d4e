//! The control plane: turns API calls into versions, and versions into snapshots.
//!
//! Composition root. [`start`] opens the store, creates what a first start needs, and serves the admin API and the
//! watch that gateways follow.
//!
//! * [`config`]: what a control plane is told at its start. [`upkeep`]: what operators do to a store besides.
//! * [`simulation`]: the watch alone, for simulations of the network.
//! * `api`: only HTTP. `app`: the rules. `store`: only SQL.
//! * `distribution`: the newest configuration to every gateway.

pub mod config;
pub mod simulation;
pub mod upkeep;

mod api;
mod app;
mod distribution;
mod store;

mod admin_tls;
mod directory_lock;
mod first_start;
mod listener;
mod mask;
mod secret_key;
mod secret_names;
mod sync_tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use app::{
    ACCESS_TOKEN_PREFIX, App, Authority, Digest, ProcessSecrets, World, instance_token_new, token_new,
};
pub use config::{API_VERSION_DEFAULT, AUDIT_RETENTION_DEFAULT, AdminTls};
pub use config::{CreatedSecrets, Settings, StartError};
use directory_lock::DirectoryLock;
use first_start::FirstStartError;
use listener::{Opening, Stopping};
use store::Store;
pub use store::{DatabaseUrl, DatabaseUrlError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::DropGuard;

/// Connections to the admin API at the same time.
const ADMIN_CONNECTIONS_MAX: usize = 1024;

/// Gateways that watch at the same time.
const WATCH_CONNECTIONS_MAX: usize = 10_000;

/// How often old rows of the audit log, and instances that are gone, are deleted.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How often what gateways say of themselves is written to the store.
const INSTANCES_WRITE_INTERVAL: Duration = Duration::from_millis(500);

/// How often versions that come into groups under watch are looked at.
const ROLLOUTS_DRIVE_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is noted how many cores gateways use.
const CORES_RECORD_INTERVAL: Duration = Duration::from_secs(60);

/// The database in the data directory.
const DATABASE_FILE: &str = "gatewright.db";

/// A running control plane.
pub struct ControlPlane {
    admin_address: SocketAddr,
    admin_tls_address: Option<SocketAddr>,
    sync_address: Option<SocketAddr>,
    created_secrets: CreatedSecrets,
    operator_key: String,
    instance_token: String,
    watch_server: WatchServer,
    store: Store,
    /// Dropped without [`ControlPlane::stop`], it stops without waiting.
    _stops_on_drop: DropGuard,
    /// None with PostgreSQL, which control planes may share.
    _lock: Option<DirectoryLock>,
}

/// Opens the store, creates what a first start needs, binds the listeners and starts serving.
///
/// # Errors
/// When the data directory, the store or a listener cannot be used; the error names it and the remedy.
pub async fn start(settings: Settings) -> Result<ControlPlane, StartError> {
    let (admin, admin_address) = bind(settings.admin, "--admin").await?;
    let admin_tls = bind_if(settings.admin_tls.as_ref().map(|tls| tls.address), "--admin-tls").await?;
    let sync = bind_if(settings.sync, "--sync").await?;
    let world = world();
    let database = database(&settings.data_dir, settings.database.as_ref());
    let (store, lock) = store_open(&database).await?;
    let store = secret_key::unlock(store, &settings, &world).await?;
    let authority = Authority::open(&store, &world).await;
    let authority = Arc::new(authority.map_err(|error| store_failed(&database, &error))?);
    let created_secrets = first_start(&store, &world, &settings, &database, &authority).await?;
    let acceptor = settings.admin_tls.as_ref().map(|tls| admin_tls::acceptor(tls, &settings.data_dir));
    let acceptor = acceptor.transpose()?;
    let sync_acceptor = sync_tls::acceptor(Arc::clone(&authority))?;
    let announcements = store.announcements().await.map_err(|error| store_failed(&database, &error))?;

    let operator_key = token_new(&world, ACCESS_TOKEN_PREFIX);
    let instance_token = instance_token_new(&world, &authority.pin());
    let secrets = ProcessSecrets {
        access_tokens: BTreeMap::from([(Digest::of(&operator_key), app::ADMIN.to_owned())]),
        instance_tokens: BTreeMap::from([(
            Digest::of_instance_token(&instance_token),
            first_start::default_group(),
        )]),
        admin_password_file: Some(settings.data_dir.join(first_start::ADMIN_PASSWORD_FILE)),
        authority,
    };
    let hints = distribution::Hints::default();
    let stopping = Stopping::default();
    if let Some(announcements) = announcements {
        stopping.tasks.spawn(hints.clone().follow(announcements, stopping.graceful.clone()));
    }
    let app = App::new(store.clone(), world, hints, secrets, settings.rehearsal);
    let watch = distribution::watch_router(
        Arc::new(app.clone()),
        app.hints().clone(),
        app.feeds().clone(),
        stopping.graceful.clone(),
    );
    let serve = |listener, opening, router, connections_max| {
        let task = listener::serve(listener, opening, router, connections_max, stopping.clone());
        stopping.tasks.spawn(task);
    };
    work_in_background(&app, settings.audit_retention, &stopping);
    let router = api::admin_router(app, &settings.api_version);
    serve(admin, Opening::Plain, router.clone(), ADMIN_CONNECTIONS_MAX);
    let admin_tls_address = admin_tls.zip(acceptor).map(|((listener, address), acceptor)| {
        serve(listener, Opening::Tls(acceptor), router, ADMIN_CONNECTIONS_MAX);
        address
    });
    let sync_address = sync.map(|(listener, address)| {
        serve(listener, Opening::Sync(sync_acceptor), watch.clone(), WATCH_CONNECTIONS_MAX);
        address
    });
    let sync = sync_address.map(tracing::field::display);
    tracing::info!(%admin_address, sync_address = sync, "the control plane serves");
    Ok(ControlPlane {
        admin_address,
        admin_tls_address,
        sync_address,
        created_secrets,
        operator_key,
        instance_token,
        _stops_on_drop: stopping.graceful.clone().drop_guard(),
        watch_server: WatchServer { router: watch, stopping },
        store,
        _lock: lock,
    })
}

/// The database that is used: the one that was `chosen`, or else SQLite in the data directory.
#[must_use]
pub fn database(data_dir: &Path, chosen: Option<&DatabaseUrl>) -> DatabaseUrl {
    chosen.cloned().unwrap_or_else(|| DatabaseUrl::sqlite(data_dir.join(DATABASE_FILE)))
}

/// The OpenAPI document of the admin API, as it is served and committed.
#[must_use]
pub fn openapi() -> String {
    api::document()
}

async fn bind(address: SocketAddr, flag: &'static str) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Bind { address, flag, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn bind_if(
    address: Option<SocketAddr>,
    flag: &'static str,
) -> Result<Option<(TcpListener, SocketAddr)>, StartError> {
    match address {
        Some(address) => Ok(Some(bind(address, flag).await?)),
        None => Ok(None),
    }
}

/// Begins what goes on beside calls.
fn work_in_background(app: &App, audit_retention: Duration, stopping: &Stopping) {
    stopping.tasks.spawn(expire(app.clone(), audit_retention, stopping.clone()));
    stopping.tasks.spawn(instances_write(app.clone(), stopping.clone()));
    stopping.tasks.spawn(cores_record(app.clone(), stopping.clone()));
    stopping.tasks.spawn(standings_warm(app.clone(), stopping.clone()));
    stopping.tasks.spawn(rollouts_drive(app.clone(), stopping.clone()));
}

/// Writes what gateways say of themselves, as long as they do.
async fn instances_write(app: App, stopping: Stopping) {
    loop {
        tokio::select! {
            () = stopping.graceful.cancelled() => return,
            () = tokio::time::sleep(INSTANCES_WRITE_INTERVAL) => {}
        }
        if let Err(refusal) = app.instances_write().await {
            tracing::warn!(%refusal, "heartbeats of gateways could not be written; they are kept in memory");
        }
    }
}

/// Reads what stands in the groups, so that nobody waits for it later.
async fn standings_warm(app: App, stopping: Stopping) {
    tokio::select! {
        () = stopping.graceful.cancelled() => {}
        warmed = app.standings_warm() => {
            if let Err(refusal) = warmed {
                tracing::warn!(%refusal, "what stands in the groups could not be read; it is when it is asked for");
            }
        }
    }
}

/// Watches the versions that come into groups.
async fn rollouts_drive(app: App, stopping: Stopping) {
    loop {
        tokio::select! {
            () = stopping.graceful.cancelled() => return,
            () = tokio::time::sleep(ROLLOUTS_DRIVE_INTERVAL) => {}
        }
        if let Err(refusal) = app.rollouts_drive().await {
            tracing::warn!(%refusal, "rollouts could not be looked at; nothing of them changes");
        }
    }
}

/// Notes how many cores gateways use, now and then.
async fn cores_record(app: App, stopping: Stopping) {
    loop {
        tokio::select! {
            () = stopping.graceful.cancelled() => return,
            () = tokio::time::sleep(CORES_RECORD_INTERVAL) => {}
        }
        if let Err(refusal) = app.cores_record().await {
            tracing::warn!(%refusal, "how many cores gateways use could not be noted");
        }
    }
}

/// Deletes what is too old, now and then.
async fn expire(app: App, retention: Duration, stopping: Stopping) {
    let seconds = i64::try_from(retention.as_secs()).unwrap_or(i64::MAX);
    loop {
        match app.audit_log_expire(seconds).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "old rows of the audit log were deleted"),
            Err(refusal) => tracing::warn!(%refusal, "the audit log could not be shortened"),
        }
        match app.instances_expire().await {
            Ok(0) => {}
            Ok(instances) => {
                tracing::info!(instances, "gateway instances that were offline for a week were removed")
            }
            Err(refusal) => tracing::warn!(%refusal, "gateway instances that are gone could not be removed"),
        }
        tokio::select! {
            () = stopping.graceful.cancelled() => return,
            () = tokio::time::sleep(EXPIRE_INTERVAL) => {}
        }
    }
}

/// Opens the store; the lock keeps other control planes from a SQLite database.
async fn store_open(database: &DatabaseUrl) -> Result<(Store, Option<DirectoryLock>), StartError> {
    let lock = database.sqlite_path().map(sqlite_take).transpose()?;
    let store = Store::open(database).await.map_err(|error| store_failed(database, &error))?;
    Ok((store, lock))
}

fn sqlite_take(path: &Path) -> Result<DirectoryLock, StartError> {
    let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let lock = DirectoryLock::take(directory)?;
    // SQLite would create it readable by everybody; its companions take over this mode.
    let failed = |source| StartError::DataDirectory { path: directory.to_owned(), source };
    first_start::file_open_private(path).map_err(failed)?;
    Ok(lock)
}

async fn first_start(
    store: &Store,
    world: &World,
    settings: &Settings,
    database: &DatabaseUrl,
    authority: &Authority,
) -> Result<CreatedSecrets, StartError> {
    first_start::first_start(store, world, settings, authority).await.map_err(|error| match error {
        FirstStartError::File(source) => {
            StartError::DataDirectory { path: settings.data_dir.clone(), source }
        }
        other => store_failed(database, &other),
    })
}

fn store_failed(database: &DatabaseUrl, error: &dyn std::error::Error) -> StartError {
    StartError::Store { database: database.to_string(), reason: error.to_string() }
}

/// The world as it is: the system's clock and the system's randomness.
fn world() -> World {
    let clock = || {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
    };
    let random = || {
        let mut bytes = [0; 32];
        match getrandom::fill(&mut bytes) {
            Ok(()) => bytes,
            Err(error) => unreachable!("the system has no randomness, and nothing is safe without: {error}"),
        }
    };
    World::new(clock, random)
}

impl ControlPlane {
    /// Where the admin API answers; the port is real even if port 0 was asked for.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Where the admin API answers over TLS, if that was asked for.
    #[must_use]
    pub fn admin_tls_address(&self) -> Option<SocketAddr> {
        self.admin_tls_address
    }

    /// Where remote gateways are answered, if a sync listener was asked for.
    #[must_use]
    pub fn sync_address(&self) -> Option<SocketAddr> {
        self.sync_address
    }

    /// The secrets that this start made at random, to be shown once; empty on any later start.
    #[must_use]
    pub fn created_secrets(&self) -> &CreatedSecrets {
        &self.created_secrets
    }

    /// An admin key that lives as long as this process, for its own commands; it is stored nowhere.
    #[must_use]
    pub fn operator_key(&self) -> &str {
        &self.operator_key
    }

    /// An instance token of the group `default` that lives as long as this process, for a gateway inside it.
    #[must_use]
    pub fn instance_token(&self) -> &str {
        &self.instance_token
    }

    /// Serves the watch on connections made elsewhere, such as a pipe to a gateway in the same process.
    #[must_use]
    pub fn watch_server(&self) -> WatchServer {
        self.watch_server.clone()
    }

    /// Stops accepting, lets calls in flight finish until `deadline`, and closes the store.
    pub async fn stop(self, deadline: Duration) {
        self.watch_server.stopping.stop(deadline).await;
        self.store.close().await;
        tracing::info!("the control plane stopped");
    }
}

/// Serves the watch protocol on any byte stream.
#[derive(Clone)]
pub struct WatchServer {
    router: axum::Router,
    stopping: Stopping,
}

impl WatchServer {
    /// Serves one connection until it closes.
    pub async fn serve<I: AsyncRead + AsyncWrite + Send + Unpin + 'static>(&self, stream: I) {
        let serving = listener::serve_http2(stream, None, self.router.clone(), &self.stopping);
        self.stopping.tasks.track_future(serving).await;
    }
}
