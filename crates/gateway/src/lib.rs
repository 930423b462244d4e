//! The data plane: turns a snapshot into traffic.
//!
//! Composition root. [`start`] binds the listeners, starts one single-threaded worker per core and one small
//! background runtime, and hands the configuration that arrives from the [`source`] to the workers by swapping one
//! pointer.
//!
//! * [`config`]: startup settings.
//! * [`source`]: where configuration comes from.
//! * `live`: a snapshot compiled, and the pointer that is swapped.
//! * `router`: which route serves a request; pure.
//! * [`rehearsal`]: the same for requests that nobody sent.
//! * `http1`: the codec; pure.
//! * `http2`: what the `h2` crate leaves to decide.
//! * [`upstream`]: nodes, balancing, health, connections kept open.
//! * `proxy`: a request on its way.
//! * [`telemetry`]: what the gateway tells about its work.
//! * `tls`: certificates, and handshakes with clients.
//! * `transport`: what a connection runs on.
//! * `worker`: one thread, one runtime, nothing shared on the request path.
//! * `status`: the status listener.

pub mod config;
pub mod source;

mod live;

pub mod router;

pub mod rehearsal;

pub mod upstream;

mod http1;
mod http2;
mod proxy;
pub mod telemetry;
mod tls;
mod transport;
mod worker;

mod status;

#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(test)]
mod seeds;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use config::{Limits, Settings, StartError};
pub use source::{Connector, Io};
use tokio::runtime::{Builder, LocalOptions, Runtime};
use tokio::sync::{mpsc, watch};

use live::LiveConfig;
use live::current::Current;
use source::cache::Cache;
use source::control_plane::Following;
use source::report::Reports;
use telemetry::access_log::writer::Channel;
use telemetry::access_log::{self, Destination};
use telemetry::{Recorder, Teller};
use upstream::names::SystemDns;

/// Threads of the background runtime: configuration, status, health checks, names, and later logs. None of it is a client
/// request, so two are enough.
const BACKGROUND_THREADS: usize = 2;

/// Held as long as a gateway uses its data directory.
const LOCK_FILE: &str = "gateway.lock";

/// How long the end of a gateway waits for the last lines of its access log.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(5);

/// A running gateway.
pub struct Gateway {
    proxy_address: SocketAddr,
    proxy_tls_address: Option<SocketAddr>,
    status_address: SocketAddr,
    stop: watch::Sender<bool>,
    /// Closes when the last worker ended.
    workers_ended: mpsc::Receiver<()>,
    access_log: Option<AccessLog>,
    background: Option<Runtime>,
    /// Unlocked when it is closed; none: nothing is kept on disk.
    _lock: Option<File>,
}

/// Binds the listeners and starts serving; configuration arrives through `connector`.
///
/// # Errors
/// When a listener cannot be bound or a thread cannot be started; the error names the address and the remedy.
pub fn start(settings: Settings, connector: Arc<dyn Connector>) -> Result<Gateway, StartError> {
    let proxy_listeners = bind(settings.proxy, settings.workers.get(), "--proxy")?;
    let (tls_listeners, proxy_tls_address) = bind_tls(&settings)?;
    let status_listener = bind(settings.status, 1, "--status")?.remove(0);
    let proxy_address = local_address(&proxy_listeners[0], settings.proxy, "--proxy")?;
    let status_address = local_address(&status_listener, settings.status, "--status")?;
    let tls = Arc::new(tls::Shared::new(&settings.tls)?);

    let kept = settings.data_dir.as_deref().map(|path| DataDirectory::open(path, &settings)).transpose()?;
    let DataDirectory { cache, lock } = kept.unwrap_or_default();
    let reports = Reports::new();
    let limits = settings.limits;
    let current = Current::new(LiveConfig::empty());
    let (stop, stopping) = watch::channel(false);
    let background = Builder::new_multi_thread()
        .worker_threads(BACKGROUND_THREADS)
        .thread_name("gatewright-background")
        .enable_all()
        .build()
        .map_err(|source| StartError::Thread { what: "background runtime", source })?;
    let teller = Arc::new(Teller::new(settings.gateway_group_id.as_str()));
    let access_log = settings.access_log.clone().map(AccessLog::start).transpose()?;
    let shown = status::Shown {
        current: current.clone(),
        reports: reports.clone(),
        tls: Arc::clone(&tls),
        access_log: access_log.as_ref().map(|log| log.channel.clone()),
    };
    background.spawn(serve_status(status_listener, shown, stopping.clone()));
    let beside = upstream::Background::new(
        settings.workers.get(),
        background.handle().clone(),
        Arc::new(SystemDns::default()),
        Arc::clone(&tls),
    );
    let (current_too, background_too) = (current.clone(), Arc::new(beside));
    let following =
        Following { settings, connector, current: current_too, background: background_too, cache, reports };
    background.spawn(source::control_plane::follow(following, stopping.clone()));

    let (alive, workers_ended) = mpsc::channel(1);
    let mut tls_listeners = tls_listeners.into_iter();
    for (index, plain) in proxy_listeners.into_iter().enumerate() {
        let thread = Worker {
            index,
            plain,
            tls_listener: tls_listeners.next(),
            tls: Arc::clone(&tls),
            current: current.clone(),
            limits,
            recorder: Recorder::new(&teller, access_log.as_ref().map(|log| &log.channel)),
            stopping: stopping.clone(),
            alive: alive.clone(),
        };
        std::thread::Builder::new()
            .name(format!("gatewright-{index}"))
            .spawn(move || thread.run())
            .map_err(|source| StartError::Thread { what: "worker thread", source })?;
    }
    Ok(Gateway {
        proxy_address,
        proxy_tls_address,
        status_address,
        stop,
        workers_ended,
        access_log,
        background: Some(background),
        _lock: lock,
    })
}

fn bind(address: SocketAddr, count: usize, flag: &'static str) -> Result<Vec<TcpListener>, StartError> {
    worker::listen::bind(address, count).map_err(|source| StartError::Bind { address, flag, source })
}

/// The listeners for TLS, one for each worker, and their address; none unless TLS is asked for.
fn bind_tls(settings: &Settings) -> Result<(Vec<TcpListener>, Option<SocketAddr>), StartError> {
    let Some(address) = settings.tls.listener else { return Ok((Vec::new(), None)) };
    let listeners = bind(address, settings.workers.get(), "--proxy-tls")?;
    let bound = local_address(&listeners[0], address, "--proxy-tls")?;
    Ok((listeners, Some(bound)))
}

fn local_address(
    listener: &TcpListener,
    address: SocketAddr,
    flag: &'static str,
) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Bind { address, flag, source })
}

async fn serve_status(listener: TcpListener, shown: status::Shown, stopping: watch::Receiver<bool>) {
    match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => status::serve(listener, shown, stopping).await,
        Err(error) => tracing::error!(%error, "the status listener cannot be used"),
    }
}

/// What is kept between two lives of a gateway.
#[derive(Default)]
struct DataDirectory {
    cache: Option<Cache>,
    lock: Option<File>,
}

impl DataDirectory {
    /// A directory that cannot be used costs the next restart, not this one; one that another gateway uses is refused.
    fn open(path: &Path, settings: &Settings) -> Result<Self, StartError> {
        let opened = DirBuilder::new().recursive(true).mode(0o700).create(path).and_then(|()| {
            let lock = path.join(LOCK_FILE);
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(lock)
        });
        let complain = |error: io::Error| {
            tracing::error!(path = %path.display(), %error, "no configuration is kept on disk (--data-dir); a restart without a control plane would have none");
            Self::default()
        };
        let lock = match opened {
            Ok(lock) => lock,
            Err(error) => return Ok(complain(error)),
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StartError::DataDirectoryTaken { path: path.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Ok(complain(error)),
        }
        match Cache::open(path, &settings.gateway_group_id) {
            Ok(cache) => Ok(Self { cache: Some(cache), lock: Some(lock) }),
            Err(error) => Ok(Self { lock: Some(lock), ..complain(error) }),
        }
    }
}

/// What a worker thread is started with.
struct Worker {
    index: usize,
    plain: TcpListener,
    tls_listener: Option<TcpListener>,
    tls: Arc<tls::Shared>,
    current: Current,
    limits: Limits,
    recorder: Recorder,
    stopping: watch::Receiver<bool>,
    /// Dropped when the thread ends, which is all it is for.
    alive: mpsc::Sender<()>,
}

impl Worker {
    fn run(self) {
        let Worker { index, plain, tls_listener, tls, current, limits, recorder, stopping, alive } = self;
        let worker = worker::Worker::new(index, tls, current.reader(), limits, recorder);
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(index, %error, "a worker cannot start its runtime"),
        };
        runtime.block_on(async {
            match worker::Listeners::of(plain, tls_listener) {
                Ok(listeners) => worker::run(worker, listeners, stopping).await,
                Err(error) => tracing::error!(index, %error, "a worker cannot use its listener"),
            }
        });
        drop(alive);
    }
}

/// The access log of a running gateway.
struct AccessLog {
    channel: Channel,
    /// Closes when the last line is written.
    ended: mpsc::Receiver<()>,
}

impl AccessLog {
    fn start(settings: access_log::Settings) -> Result<Self, StartError> {
        let path = match &settings.to {
            Destination::Stdout => "stdout".to_owned(),
            Destination::File(path) => path.display().to_string(),
        };
        let (alive, ended) = mpsc::channel(1);
        match access_log::writer::start(settings, alive) {
            Ok(channel) => Ok(Self { channel, ended }),
            Err(source) => Err(StartError::AccessLog { path, source }),
        }
    }
}

impl Gateway {
    /// Where clients are answered; the port is real even if port 0 was asked for.
    #[must_use]
    pub fn proxy_address(&self) -> SocketAddr {
        self.proxy_address
    }

    /// Where clients are answered over TLS, if they are.
    #[must_use]
    pub fn proxy_tls_address(&self) -> Option<SocketAddr> {
        self.proxy_tls_address
    }

    /// Where `/status` and `/status/ready` answer.
    #[must_use]
    pub fn status_address(&self) -> SocketAddr {
        self.status_address
    }

    /// Has the access log opened anew, after somebody renamed it. To be called from any thread, at any time.
    pub fn access_log_reopener(&self) -> impl Fn() + Send + 'static {
        let channel = self.access_log.as_ref().map(|log| log.channel.clone());
        move || channel.iter().for_each(Channel::reopen)
    }

    /// Stops accepting, lets requests in flight finish until `deadline`, and ends the threads.
    pub async fn stop(mut self, deadline: Duration) {
        self.stop.send_replace(true);
        let ended = tokio::time::timeout(deadline, self.workers_ended.recv()).await;
        if ended.is_err() {
            tracing::warn!(seconds = deadline.as_secs(), "requests were still in flight at the deadline");
        }
        if let Some(AccessLog { channel, mut ended }) = self.access_log.take() {
            channel.end();
            if tokio::time::timeout(LAST_LINES_TIMEOUT, ended.recv()).await.is_err() {
                tracing::warn!("the last lines of the access log could not be written in time");
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(background) = self.background.take() {
            // Waiting here would block the runtime that drops the gateway.
            background.shutdown_background();
        }
    }
}
