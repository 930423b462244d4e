//! A thousand gateways, as a control plane sees them: watches and heartbeats, on connections of their own.
//!
//! They compile nothing; what is measured is the way of a change from the publish to every one of them, and back to
//! the answer that all of them serve it. They begin with the newest revision, as gateways do that come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use gatewright_model::protocol::{
    ENCODING, HEARTBEAT_PATH, Heartbeat, Message, TOKEN_HEADER, Update, WATCH_PATH, WatchQuery,
};
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::super::cores;
use super::process::ControlPlane;
use super::store::{GROUP, publish};

/// How long a publish may take to be everywhere.
const EVERYWHERE_MAX: Duration = Duration::from_secs(60);

/// Gateways that connect at once at the beginning.
const OPENING: usize = 50;

/// What the watches brought.
pub(super) struct Watches {
    gateways: usize,
    received: Vec<Duration>,
    confirmed: Vec<Duration>,
    bytes_per_change: u64,
    whole_bytes: u64,
    resident_bytes: u64,
}

/// What every simulated gateway knows.
struct Site {
    sync: SocketAddr,
    token: String,
    /// Bytes of everything received.
    bytes: AtomicU64,
    /// Each revision, once for each gateway that has received it.
    received: mpsc::UnboundedSender<u64>,
}

/// Measures so many publishes to so many gateways.
pub(super) fn measure(
    control_plane: &ControlPlane,
    gateways: usize,
    publishes: usize,
) -> anyhow::Result<Watches> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (received, mut receiving) = mpsc::unbounded_channel();
    let (sync, token) = (control_plane.sync, control_plane.token()?);
    let site = Arc::new(Site { sync, token, bytes: AtomicU64::new(0), received });
    let newest = runtime.block_on(whole(&site))?;
    let whole_bytes = site.bytes.swap(0, Ordering::Relaxed);
    let (failed, failures) = watch::channel(None::<String>);
    eprintln!("opening {gateways} watches");
    runtime.block_on(async {
        for first in (0..gateways).step_by(OPENING) {
            let opening = (first..gateways.min(first + OPENING)).map(|number| open(&site, number, &newest));
            for opened in opening {
                let (watching, failed) = (opened.await?, failed.clone());
                tokio::spawn(async move {
                    let Err(error) = watching.await;
                    failed.send_replace(Some(error.to_string()));
                });
            }
        }
        anyhow::Ok(())
    })?;
    let mut watches = Watches {
        gateways,
        received: Vec::new(),
        confirmed: Vec::new(),
        bytes_per_change: 0,
        whole_bytes,
        resident_bytes: 0,
    };
    for number in 0..publishes {
        let begun = Instant::now();
        let revision = publish(control_plane, &["team-1".to_owned()], &format!("2.0.{number}"))?;
        for _ in 0..gateways {
            let next =
                runtime.block_on(async { tokio::time::timeout(EVERYWHERE_MAX, receiving.recv()).await });
            let next = next.with_context(|| format!("a watch does not answer: {:?}", failures.borrow()))?;
            ensure!(next == Some(revision), "revision {next:?} was received instead of {revision}");
        }
        watches.received.push(begun.elapsed());
        let applied = control_plane
            .get(&format!("/api/gateway_groups/{GROUP}/applied?wait=60s&revision={revision}"))?;
        ensure!(applied["value"]["complete"] == true, "it is not served everywhere");
        watches.confirmed.push(begun.elapsed());
    }
    let all = u64::try_from(gateways * publishes)?;
    watches.bytes_per_change = site.bytes.load(Ordering::Relaxed) / all.max(1);
    watches.resident_bytes = cores::resident_bytes(control_plane.process.pid())?;
    Ok(watches)
}

/// Receives everything, once.
async fn whole(site: &Site) -> anyhow::Result<Update> {
    let mut connection = Connection::open(site.sync).await?;
    let query =
        WatchQuery { gateway_group_id: GROUP.parse()?, have: None, epoch: None, digest: None, version: None };
    let mut lines = connection.watch(site, &query).await?;
    loop {
        if let Message::Update(update) = lines.next(site).await? {
            return Ok(Update { services: Vec::new(), objects: Vec::new(), ..update });
        }
    }
}

/// A gateway that has `newest` begins to watch; hands back what it does from then on.
async fn open(
    site: &Arc<Site>,
    number: usize,
    newest: &Update,
) -> anyhow::Result<impl Future<Output = Result<std::convert::Infallible, anyhow::Error>> + Send + 'static> {
    let mut connection = Connection::open(site.sync).await?;
    let query = WatchQuery {
        gateway_group_id: GROUP.parse()?,
        have: Some(newest.revision),
        epoch: newest.epoch.clone(),
        digest: newest.digest,
        version: None,
    };
    let mut heartbeat = Heartbeat {
        instance_id: format!("simulated-{number}").parse()?,
        hostname: "simulated".to_owned(),
        version: "0.0.1".to_owned(),
        ports: vec![9080],
        stream_ports: gatewright_model::stream::ports::Ports::default(),
        cores: 1,
        epoch: newest.epoch.clone(),
        applied: Some(newest.revision),
        persisted: Some(newest.revision),
        quarantined: Vec::new(),
        plugins: Vec::new(),
        prepared: None,
        versions: Vec::new(),
        registries: Vec::new(),
    };
    let mut lines = connection.watch(site, &query).await?;
    connection.beat(site, &heartbeat).await?;
    let site = Arc::clone(site);
    Ok(async move {
        loop {
            let Message::Update(update) = lines.next(&site).await? else { continue };
            ensure!(!update.full, "everything was sent, though only a change was missing");
            heartbeat.applied = Some(update.revision);
            heartbeat.persisted = heartbeat.applied;
            site.received.send(update.revision.0)?;
            connection.beat(&site, &heartbeat).await?;
        }
    })
}

/// An HTTP/2 connection to the control plane.
struct Connection {
    sender: SendRequest<Bytes>,
}

impl Connection {
    async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let handshake = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(2 << 20)
            .handshake(stream);
        let (sender, connection) = handshake.await?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    async fn watch(&mut self, site: &Site, query: &WatchQuery) -> anyhow::Result<Lines> {
        let request = http::Request::get(format!("http://bench{WATCH_PATH}?{}", query.to_query_string()))
            .header(TOKEN_HEADER, &site.token)
            .header("accept-encoding", ENCODING)
            .body(())?;
        let (answer, _) = self.sender.clone().ready().await?.send_request(request, true)?;
        let answer = answer.await?;
        ensure!(answer.status() == 200, "a watch is answered with {}", answer.status());
        let unpacking = zstd::stream::write::Decoder::new(Vec::new())?;
        Ok(Lines { body: answer.into_body(), unpacking, text: Vec::new() })
    }

    async fn beat(&mut self, site: &Site, heartbeat: &Heartbeat) -> anyhow::Result<()> {
        let request = http::Request::post(format!("http://bench{HEARTBEAT_PATH}"))
            .header(TOKEN_HEADER, &site.token)
            .header("content-type", "application/json")
            .body(())?;
        let (answer, mut body) = self.sender.clone().ready().await?.send_request(request, false)?;
        body.send_data(serde_json::to_vec(heartbeat)?.into(), true)?;
        let status = answer.await?.status();
        ensure!(status == 204, "a heartbeat is answered with {status}");
        Ok(())
    }
}

/// What a watch says.
struct Lines {
    body: h2::RecvStream,
    unpacking: zstd::stream::write::Decoder<'static, Vec<u8>>,
    text: Vec<u8>,
}

impl Lines {
    async fn next(&mut self, site: &Site) -> anyhow::Result<Message> {
        use std::io::Write as _;
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            let Some(data) = self.body.data().await else { bail!("the control plane ended a watch") };
            let data = data?;
            self.body.flow_control().release_capacity(data.len())?;
            site.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
            self.unpacking.write_all(&data)?;
            self.unpacking.flush()?;
            self.text.append(self.unpacking.get_mut());
        }
    }
}

impl Watches {
    pub(super) fn rows(&self) -> String {
        let Self { gateways, received, confirmed, bytes_per_change, whole_bytes, resident_bytes } = self;
        let times = |durations: &[Duration]| {
            let mut sorted = durations.to_vec();
            sorted.sort_unstable();
            let at = |share: usize| sorted[(sorted.len() - 1) * share / 100].as_secs_f64() * 1e3;
            format!("p50 {:.0} ms, p99 {:.0} ms", at(50), at(99))
        };
        format!(
            "| publish of one service, until {gateways} gateways have received it | {} |\n\
             | the same, until the control plane knows that all of them serve it | {} |\n\
             | bytes to each gateway for that change; for everything | {bytes_per_change}; {whole_bytes} |\n\
             | memory of the control plane | {} MB |",
            times(received),
            times(confirmed),
            resident_bytes >> 20
        )
    }
}
