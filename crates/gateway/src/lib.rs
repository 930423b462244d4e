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
//! * `stream`: a connection at layer 4 on its way.
//! * [`telemetry`]: what the gateway tells about its work.
//! * `tls`: certificates, and handshakes with clients.
//! * `transport`: what a connection runs on. `memory`: what happens when it runs short.
//! * `background`: where everything runs that is no client request. `data_directory`: what is kept over restarts.
//! * `listeners`, `handover`: the listening sockets, and how they pass to the process that replaces this one.
//! * `outbound`: the way outside for plugins. `secrets`: what references of configurations stand for.
//! * `worker`: one thread, one runtime, nothing shared on the request path.
//! * `heartbeat`: what this instance reports of itself. `samples`: what it sends of requests for previews. `status`: the status listener.
//! * [`simulation`]: a gateway without listeners and workers, for simulations of the network.

pub mod config;
pub mod source;

mod live;

pub mod rehearsal;
pub mod router;
pub mod upstream;

mod background;
mod data_directory;
mod handover;
mod listeners;
mod memory;
mod outbound;
mod secrets;

mod http1;
mod http2;
mod proxy;
mod stream;
pub mod telemetry;
mod tls;
mod transport;
mod worker;

mod heartbeat;
mod samples;
pub mod simulation;
mod status;

#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(test)]
mod seeds;

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use config::{DebugToken, Limits, Settings, StartError, Trust};
pub use handover::Inheritance;
pub use memory::MemoryLimit;
pub use source::{Connector, Io, Source};
use tokio::runtime::{Builder, Handle, LocalOptions};
use tokio::sync::{mpsc, watch};

use background::BackgroundRuntime;
use data_directory::DataDirectory;
use handover::Sockets;
use heartbeat::Identity;
use listeners::Addresses;
use live::LiveConfig;
use live::current::Current;
use source::cache::SealedFile;
use source::connection::Shared;
use source::control_plane::Following;
use source::file::follow::Follower;
use source::report::Reports;
use stream::listeners::{Ground, Open, StreamListeners};
use telemetry::access_log::writer::Channel;
use telemetry::access_log::{self, Destination};
use telemetry::metrics::Metrics;
use telemetry::sampler::Sampler;
use telemetry::{Recorder, Teller};
use upstream::names::SystemDns;
use worker::departure::Departure;
use worker::door::Door;
use worker::{Hours, Setup};

/// Between two looks for the first configuration.
const CONFIGURED_INTERVAL: Duration = Duration::from_millis(10);

/// How often numbers of what has gone are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// How long before the deadline of a stop those learn of it who would not end by themselves, such as WebSockets; less
/// if the deadline is near.
const GOODBYE: Duration = Duration::from_secs(3);

/// How long the end of a gateway waits for the last lines of its access log.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(5);

/// A running gateway.
pub struct Gateway {
    addresses: Addresses,
    stop: watch::Sender<bool>,
    /// Told to those who stay, once it stops.
    departure: watch::Sender<Departure>,
    /// Closes when the last worker ended.
    workers_ended: mpsc::Receiver<()>,
    access_log: Option<AccessLog>,
    _background: BackgroundRuntime,
    current: Current,
    sockets: Arc<Sockets>,
    streams: StreamListeners,
    /// How long streams go on in a process that was replaced.
    stream_drain: Duration,
    /// Unlocked when it is closed; none: nothing is kept on disk.
    lock: Option<File>,
}

/// Binds the listeners and starts serving what is in `source`.
///
/// # Errors
/// When a listener cannot be bound, a thread cannot be started or a configuration file is refused; the error names the
/// place and the remedy.
pub fn start(settings: Settings, source: impl Into<Source>) -> Result<Gateway, StartError> {
    launch(settings, source.into(), None)
}

/// Like [`start`], on the listening sockets of the process before this one. Accepts only once a configuration is
/// served, since until then the other process serves.
///
/// # Errors
/// Like [`start`].
pub fn take_over(
    inheritance: &mut Inheritance,
    settings: Settings,
    source: impl Into<Source>,
) -> Result<Gateway, StartError> {
    launch(settings, source.into(), Some(std::mem::take(&mut inheritance.sockets)))
}

fn launch(mut settings: Settings, source: Source, inherited: Option<Sockets>) -> Result<Gateway, StartError> {
    let takes_over = inherited.is_some();
    let listeners = listeners::open(&settings, inherited.unwrap_or_default())?;
    settings.workers = NonZeroUsize::new(listeners.proxy.len()).unwrap_or(settings.workers);
    let tls = Arc::new(tls::Shared::new(&settings.tls)?);

    let open = |path| DataDirectory::open(path, &settings, takes_over);
    let kept = settings.data_dir.as_deref().map(open).transpose()?;
    let DataDirectory { cache, nodes, lock } = kept.unwrap_or_default();
    let (reports, limits, sampler) = (Reports::new(), settings.limits, Arc::new(Sampler::new()));
    let door = Arc::new(Door::new(&limits, settings.trust.clone()));
    let metrics = Arc::new(Metrics::asked_for(&settings));
    let current = Current::new(LiveConfig::unconfigured(Arc::clone(&metrics)));
    let (stop, stopping) = watch::channel(false);
    let (departure, departing) = watch::channel(Departure::default());
    let background = BackgroundRuntime::start()?;
    watch_over(&settings, &door, &metrics, &background);
    let (opening, opened) = watch::channel(!takes_over);
    background.spawn(open_once_configured(current.clone(), opening));
    let (ground, news) = (Ground::of(&settings, &listeners.addresses), (current.clone(), reports.clone()));
    let streams = StreamListeners::follow(ground, listeners.streams, news, &background, stopping.clone());
    let teller = Arc::new(Teller::new(&settings));
    let access_log = settings.access_log.clone().map(AccessLog::start).transpose()?;
    let shown = status::Shown {
        current: current.clone(),
        reports: reports.clone(),
        tls: Arc::clone(&tls),
        access_log: access_log.as_ref().map(|log| log.channel.clone()),
        door: Arc::clone(&door),
        teller: Arc::clone(&teller),
        connector: source.connector(),
    };
    background.spawn(upstream::discovered::probes::look(current.board().clone()));
    background.spawn(serve_status(listeners.status, shown, stopping.clone()));
    let outside = upstream::Outside::of(&settings, &tls, &metrics.shipments);
    let beside = beside(&settings, outside, &current, &background, (nodes, &stopping));
    let (current_too, shared) = (current.clone(), Shared::new());
    let following = Following { settings, current: current_too, background: beside, cache, reports, shared };
    follow(source, (following, &sampler), &background, listeners.addresses.ports(), &stopping)?;

    let (alive, workers_ended) = mpsc::channel(1);
    let mut tls_listeners = listeners.tls.into_iter();
    let lines = access_log.as_ref().map(|log| &log.channel);
    for (index, plain) in listeners.proxy.into_iter().enumerate() {
        let thread = Worker {
            index,
            plain,
            tls_listener: tls_listeners.next(),
            tls: Arc::clone(&tls),
            current: current.clone(),
            limits,
            recorder: Recorder::new(index, Arc::clone(&metrics), &teller, lines, Arc::clone(&sampler)),
            door: Arc::clone(&door),
            hours: Hours { open: opened.clone(), stop: stopping.clone() },
            departure: departing.clone(),
            streams: streams.subscribe(),
            alive: alive.clone(),
        };
        thread.spawn()?;
    }
    Ok(Gateway {
        addresses: listeners.addresses,
        stop,
        departure,
        workers_ended,
        access_log,
        _background: background,
        current,
        sockets: Arc::new(listeners.kept),
        streams,
        stream_drain: limits.stream_drain,
        lock,
    })
}

/// What works for every upstream and plugin beside the configuration.
fn beside(
    settings: &Settings,
    outside: upstream::Outside,
    current: &Current,
    background: &Handle,
    (kept_nodes, stopping): (Option<SealedFile>, &watch::Receiver<bool>),
) -> Arc<upstream::Background> {
    let (workers, lookup) = (settings.workers.get(), Arc::new(SystemDns::default()));
    let board = current.board().clone();
    let beside = upstream::Background::new(workers, background.clone(), lookup, outside, board);
    if let Some(file) = kept_nodes {
        beside.discovery.keep_on(file, stopping.clone());
    }
    Arc::new(beside)
}

/// Has what is in `source` served, and reports of it if somebody is to know.
fn follow(
    source: Source,
    (following, sampler): (Following, &Arc<Sampler>),
    background: &Handle,
    ports: Vec<u16>,
    stopping: &watch::Receiver<bool>,
) -> Result<(), StartError> {
    match source {
        Source::ControlPlane(connector) => {
            background.spawn(report(&following, ports, stopping.clone()));
            let (settings, shared) = (following.settings.clone(), following.shared.clone());
            background.spawn(samples::send_sampled(settings, shared, Arc::clone(sampler), stopping.clone()));
            background.spawn(source::control_plane::follow(following, connector, stopping.clone()));
        }
        Source::File(path) => {
            let follower = Follower::start(path, following)?;
            background.spawn(follower.follow(stopping.clone()));
        }
    }
    Ok(())
}

/// The reporting of what `following` comes to.
fn report(
    following: &Following,
    ports: Vec<u16>,
    stopping: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send + 'static {
    let Following { settings, current, reports, shared, .. } = following;
    let identity = Identity {
        instance_id: settings.instance_id.clone(),
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        ports,
        stream_ports: settings.stream_ports.clone(),
        cores: u32::try_from(settings.workers.get()).unwrap_or(u32::MAX),
    };
    heartbeat::report(settings.clone(), identity, shared.clone(), current.clone(), reports.clone(), stopping)
}

/// Waits until there is a configuration to serve.
async fn until_configured(current: &Current) {
    while current.load().revision.is_none() {
        tokio::time::sleep(CONFIGURED_INTERVAL).await;
    }
}

/// A gateway that takes over lets clients in once it has something to serve: until then, the one before serves.
async fn open_once_configured(current: Current, opening: watch::Sender<bool>) {
    until_configured(&current).await;
    opening.send_replace(true);
}

/// Has an eye on memory, and on numbers that nobody needs any more.
fn watch_over(settings: &Settings, door: &Door, metrics: &Arc<Metrics>, background: &Handle) {
    if let Some(limit) = settings.memory.clone() {
        background.spawn(memory::watch(limit, door.pressure.clone()));
    }
    background.spawn(sweep(Arc::clone(metrics)));
}

/// Forgets the numbers of what has been gone for long, as long as the gateway runs.
async fn sweep(metrics: Arc<Metrics>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        metrics.sweep(Instant::now());
    }
}

async fn serve_status(listener: TcpListener, shown: status::Shown, stopping: watch::Receiver<bool>) {
    match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => status::serve(listener, shown, stopping).await,
        Err(error) => tracing::error!(%error, "the status listener cannot be used"),
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
    door: Arc<Door>,
    hours: Hours,
    departure: watch::Receiver<Departure>,
    streams: watch::Receiver<Open>,
    /// Dropped when the thread ends, which is all it is for.
    alive: mpsc::Sender<()>,
}

impl Worker {
    fn spawn(self) -> Result<(), StartError> {
        let thread = std::thread::Builder::new().name(format!("gatewright-{}", self.index));
        let spawned = thread.spawn(move || self.run());
        spawned.map(drop).map_err(|source| StartError::Thread { what: "worker thread", source })
    }

    fn run(self) {
        let Worker { index, plain, tls_listener, tls, current, limits, recorder, door, hours, .. } = self;
        let Worker { departure, streams, alive, .. } = self;
        let live = current.reader();
        let worker = worker::Worker::new(Setup { index, live, tls, limits, recorder, door, departure });
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(index, %error, "a worker cannot start its runtime"),
        };
        runtime.block_on(async {
            match worker::Listeners::of(plain, tls_listener, streams) {
                Ok(listeners) => worker::run(worker, listeners, hours).await,
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
        self.addresses.proxy
    }

    /// Where clients are answered over TLS, if they are.
    #[must_use]
    pub fn proxy_tls_address(&self) -> Option<SocketAddr> {
        self.addresses.tls
    }

    /// Where `/status` and `/status/ready` answer.
    #[must_use]
    pub fn status_address(&self) -> SocketAddr {
        self.addresses.status
    }

    /// Waits until a configuration is served, at the ports of its streams as well: before, they could not be handed on.
    pub async fn until_ready(&self) {
        until_configured(&self.current).await;
        self.streams.until_open().await;
    }

    /// Hands the listening sockets to the process at the other end of `peer` and waits until it serves. Whatever comes
    /// of it, this gateway goes on until it is stopped.
    ///
    /// # Errors
    /// When the other process ends, fails or answers too late, as the timeouts of `peer` say.
    pub async fn hand_over(&self, peer: UnixStream) -> io::Result<()> {
        let (sockets, streams) = (Arc::clone(&self.sockets), self.streams.clone());
        let handing = tokio::task::spawn_blocking(move || {
            let mut all = sockets.copied()?;
            streams.keep(&mut all)?;
            handover::hand_over(&all, peer)
        });
        handing.await.map_err(io::Error::other)?
    }

    /// Has the access log opened anew, after somebody renamed it. To be called from any thread, at any time.
    pub fn access_log_reopener(&self) -> impl Fn() + Send + 'static {
        let channel = self.access_log.as_ref().map(|log| log.channel.clone());
        move || channel.iter().for_each(Channel::reopen)
    }

    /// Stops accepting, lets requests in flight finish until `deadline`, and ends the threads. WebSockets are told
    /// shortly before.
    pub async fn stop(self, deadline: Duration) {
        let goodbye = GOODBYE.min(deadline / 2);
        let last = Departure { websockets_go: true, streams_go: true, ..Departure::default() };
        self.leave(&[(Departure::default(), deadline - goodbye), (last, deadline)]).await;
    }

    /// Like [`Gateway::stop`], after another process took over: nobody waits for this one to end, so streams, which
    /// cannot move, may go on as long as those whose stream route was removed.
    pub async fn retire(self, deadline: Duration) {
        let drain = self.stream_drain;
        if drain <= deadline {
            return self.stop(deadline).await;
        }
        let (goodbye, nothing) = (GOODBYE.min(deadline / 2), Departure::default());
        let requests = Departure { websockets_go: true, ..nothing };
        let streams = Departure { streams_only: true, ..requests };
        let last = Departure { streams_go: true, ..streams };
        let steps =
            [(nothing, deadline - goodbye), (requests, deadline), (streams, drain), (last, drain + goodbye)];
        self.leave(&steps).await;
    }

    /// Stops accepting and tells those who stay each step, one after the time of the other.
    async fn leave(mut self, steps: &[(Departure, Duration)]) {
        // The workers close what they accept from; a copy would keep the sockets open with nobody to accept.
        self.sockets = Arc::default();
        self.stop.send_replace(true);
        self.streams.close();
        // Whoever still writes the configuration holds a lock of his own until he is done.
        self.lock = None;
        let begun = tokio::time::Instant::now();
        let mut ended = false;
        for (step, until) in steps {
            if !ended {
                if step.streams_only && !step.streams_go {
                    tracing::info!("streams that began in this process go on in it");
                }
                self.departure.send_replace(*step);
                ended = tokio::time::timeout_at(begun + *until, self.workers_ended.recv()).await.is_ok();
            }
        }
        if !ended {
            let seconds = begun.elapsed().as_secs();
            tracing::warn!(seconds, "requests or streams were still open at the deadline");
        }
        if !self.current.load().metrics.shipments.finish(LAST_LINES_TIMEOUT).await {
            tracing::warn!("the last log entries and spans of plugins could not be sent in time");
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
    }
}
