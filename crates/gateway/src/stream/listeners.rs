//! Which ports are open for streams: those that the configuration asks for and the settings allow.
//!
//! Ports are opened and closed beside the live configuration, one socket for each worker. One that cannot be opened is
//! named with the reason and tried again; the rest moves on. What is open is told to the workers as a whole, so that a
//! worker only compares it with what it accepts from.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gatewright_model::id::ServiceId;
use gatewright_model::protocol::{QUARANTINED_NAMED_MAX, Quarantined, REASON_LENGTH_MAX};
use gatewright_model::stream::claim::Carrier;
use gatewright_model::stream::ports::Ports;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::config::Settings;
use crate::handover::{Purpose, Sockets};
use crate::listeners::Addresses;
use crate::live::current::Current;
use crate::source::report::Reports;
use crate::stream::router::StreamRouter;
use crate::worker::listen;

/// How long until what could not be opened is tried again: whoever holds the port may let go of it.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// A port, and what comes by it.
pub(crate) type Place = (Carrier, u16);

/// The sockets of one port, one for each worker.
pub(crate) enum Opened {
    Tcp(Vec<TcpListener>),
    Udp(Vec<UdpSocket>),
}

/// Everything that is open; told again whenever something else is served.
#[derive(Clone, Default)]
pub(crate) struct Open {
    pub(crate) ports: Arc<BTreeMap<Place, Arc<Opened>>>,
    /// Whether there is a configuration that says what is to be open.
    is_asked_for: bool,
}

/// What ports may be opened, and by whom they are taken.
pub(crate) struct Ground {
    /// The address of this machine.
    address: IpAddr,
    allowed: Ports,
    /// The ports the gateway itself listens on.
    taken: Vec<u16>,
    workers: usize,
}

/// What is open, for the workers and for the process that replaces this one.
#[derive(Clone)]
pub(crate) struct StreamListeners(watch::Sender<Open>);

impl StreamListeners {
    /// Opens and closes ports on `runtime` as what is shown changes, until `stop`.
    pub(crate) fn follow(
        ground: Ground,
        inherited: Inherited,
        shown: (Current, Reports),
        runtime: &Handle,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let listeners = Self(watch::Sender::new(Open::default()));
        runtime.spawn(follow(ground, inherited, listeners.clone(), shown, stop));
        listeners
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Open> {
        self.0.subscribe()
    }

    /// Waits until what the first configuration asks for is open.
    pub(crate) async fn until_open(&self) {
        // An error means that the gateway ends.
        let _ = self.0.subscribe().wait_for(|open| open.is_asked_for).await;
    }

    /// Keeps a second handle on every socket.
    ///
    /// # Errors
    /// When the system has no more file descriptors.
    pub(crate) fn keep(&self, sockets: &mut Sockets) -> io::Result<()> {
        let open = self.0.borrow().clone();
        for opened in open.ports.values() {
            match &**opened {
                Opened::Tcp(tcp) => tcp.iter().try_for_each(|one| sockets.keep(Purpose::StreamTcp, one))?,
                Opened::Udp(udp) => udp.iter().try_for_each(|one| sockets.keep(Purpose::StreamUdp, one))?,
            }
        }
        Ok(())
    }

    /// Closes everything.
    pub(crate) fn close(&self) {
        self.0.send_replace(Open::default());
    }
}

/// What the live configuration asks for.
#[derive(Clone)]
struct Asked {
    router: Arc<StreamRouter>,
    /// Whether there is one.
    is_configured: bool,
}

impl Asked {
    fn now(current: &Current) -> Self {
        let live = current.load();
        Self { router: Arc::clone(&live.streams), is_configured: live.revision.is_some() }
    }

    /// Waits until something else is asked for; most changes are about requests, and workers need not hear of them here.
    async fn otherwise(
        &self,
        changes: &mut watch::Receiver<()>,
        current: &Current,
    ) -> Result<(), watch::error::RecvError> {
        loop {
            changes.changed().await?;
            let now = Self::now(current);
            if !Arc::ptr_eq(&now.router, &self.router) || now.is_configured != self.is_configured {
                return Ok(());
            }
        }
    }
}

/// Opens and closes ports as the live configuration changes, until `stop`.
async fn follow(
    ground: Ground,
    inherited: Inherited,
    listeners: StreamListeners,
    (current, reports): (Current, Reports),
    mut stop: watch::Receiver<bool>,
) {
    let ground = Arc::new(ground);
    let inherited = Arc::new(Mutex::new(inherited));
    let mut changes = current.changes();
    loop {
        changes.borrow_and_update();
        let asked = Asked::now(&current);
        let Asked { router, is_configured } = asked.clone();
        let before = listeners.0.borrow().clone();
        let (ground, inherited) = (Arc::clone(&ground), Arc::clone(&inherited));
        let opening = tokio::task::spawn_blocking(move || {
            let mut inherited = inherited.lock().unwrap_or_else(PoisonError::into_inner);
            let opened = open(&ground, &before.ports, &router, &mut inherited);
            if is_configured {
                // What the process before had open and nobody asks for.
                *inherited = Inherited::default();
            }
            (Open { ports: Arc::new(opened.ports), is_asked_for: is_configured }, opened.complaints)
        });
        let Ok((open, complaints)) = opening.await else { return };
        for complaint in &complaints {
            tracing::error!(
                service = complaint.id,
                reason = complaint.reason,
                "a port for streams is not open"
            );
        }
        let is_complete = complaints.is_empty();
        reports.change(|report| report.unopened = complaints);
        listeners.0.send_replace(open);
        tokio::select! {
            changed = asked.otherwise(&mut changes, &current) => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY_PAUSE), if !is_complete => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// What the process before had open, by port.
#[derive(Default)]
pub(crate) struct Inherited(BTreeMap<Place, Opened>);

impl Inherited {
    /// Takes it out of all that was handed over.
    pub(crate) fn of(sockets: &mut Sockets) -> Self {
        let mut inherited = Self::default();
        for socket in sockets.take::<TcpListener>(Purpose::StreamTcp) {
            let Ok(address) = socket.local_addr() else { continue };
            let opened = inherited.0.entry((Carrier::Tcp, address.port())).or_insert(Opened::Tcp(Vec::new()));
            if let Opened::Tcp(tcp) = opened {
                tcp.push(socket);
            }
        }
        for socket in sockets.take::<UdpSocket>(Purpose::StreamUdp) {
            let Ok(address) = socket.local_addr() else { continue };
            let opened = inherited.0.entry((Carrier::Udp, address.port())).or_insert(Opened::Udp(Vec::new()));
            if let Opened::Udp(udp) = opened {
                udp.push(socket);
            }
        }
        inherited
    }
}

/// What opening came to.
struct Outcome {
    ports: BTreeMap<Place, Arc<Opened>>,
    complaints: Vec<Quarantined>,
}

/// Opens what `router` asks for and is not open yet.
fn open(
    ground: &Ground,
    before: &BTreeMap<Place, Arc<Opened>>,
    router: &StreamRouter,
    inherited: &mut Inherited,
) -> Outcome {
    let (mut ports, mut wrong) = (BTreeMap::new(), BTreeMap::<ServiceId, Vec<String>>::new());
    for ((carrier, port), services) in router.wanted() {
        let mut complain = |reason: String| {
            for service in &services {
                wrong.entry((*service).clone()).or_default().push(reason.clone());
            }
        };
        let places: Vec<u16> = match port {
            Some(port) => match ground.complaint(port) {
                Some(reason) => {
                    complain(reason);
                    continue;
                }
                None => vec![port],
            },
            None if ground.allowed.is_empty() => {
                complain(format!(
                    "no {} port is open to streams; start the gateway with --stream-ports",
                    carrier.name()
                ));
                continue;
            }
            None => ground.allowed.iter().filter(|port| !ground.taken.contains(port)).collect(),
        };
        for port in places {
            let place = (carrier, port);
            if ports.contains_key(&place) {
                continue;
            }
            let opened = match before.get(&place) {
                Some(opened) => Ok(Arc::clone(opened)),
                None => ground.bind(place, inherited.0.remove(&place)).map(Arc::new),
            };
            match opened {
                Ok(opened) => {
                    ports.insert(place, opened);
                }
                Err(error) => complain(format!(
                    "{} port {port} cannot be opened: {error}; stop the process that holds it, or choose another port",
                    carrier.name()
                )),
            }
        }
    }
    let complaints = wrong.into_iter().take(QUARANTINED_NAMED_MAX).map(|(service, reasons)| Quarantined {
        id: service.to_string(),
        reason: reasons.join("; ").chars().take(REASON_LENGTH_MAX).collect(),
    });
    Outcome { ports, complaints: complaints.collect() }
}

impl Ground {
    /// What `settings` allow a gateway that listens at these addresses.
    pub(crate) fn of(settings: &Settings, addresses: &Addresses) -> Self {
        let (allowed, workers) = (settings.stream_ports.clone(), settings.workers.get());
        Self { address: addresses.proxy.ip(), allowed, taken: addresses.taken(), workers }
    }

    /// Why this port is never opened, if it is not.
    fn complaint(&self, port: u16) -> Option<String> {
        if self.taken.contains(&port) {
            return Some(format!("port {port} is one the gateway itself listens on; choose another port"));
        }
        if !self.allowed.contains(port) {
            let allowed = match self.allowed.is_empty() {
                true => "none are".to_owned(),
                false => format!("{} are", self.allowed),
            };
            return Some(format!(
                "port {port} is not open to streams, {allowed}; start the gateway with --stream-ports that include \
                 it, or choose another port"
            ));
        }
        None
    }

    fn bind(&self, (carrier, port): Place, inherited: Option<Opened>) -> io::Result<Opened> {
        let address = SocketAddr::new(self.address, port);
        let is_there = |bound: io::Result<SocketAddr>| bound.is_ok_and(|bound| bound == address);
        let missing = |count: usize| self.workers.saturating_sub(count);
        match (carrier, inherited) {
            (Carrier::Tcp, Some(Opened::Tcp(mut tcp)))
                if tcp.iter().all(|one| is_there(one.local_addr())) =>
            {
                tcp.extend(listen::bind_beside(address, missing(tcp.len()))?);
                Ok(Opened::Tcp(tcp))
            }
            (Carrier::Udp, Some(Opened::Udp(mut udp)))
                if udp.iter().all(|one| is_there(one.local_addr())) =>
            {
                udp.extend(listen::bind_datagrams_beside(address, missing(udp.len()))?);
                Ok(Opened::Udp(udp))
            }
            (Carrier::Tcp, _) => listen::bind(address, self.workers).map(Opened::Tcp),
            (Carrier::Udp, _) => listen::bind_datagrams(address, self.workers).map(Opened::Udp),
        }
    }
}
