//! Where the gateway listens: on sockets it was handed by the process before it, or on ones of its own.

use std::net::{SocketAddr, TcpListener};

use crate::config::{Settings, StartError};
use crate::handover::{Purpose, Sockets};
use crate::stream::listeners::Inherited;
use crate::worker::listen;

/// The listening sockets of a gateway.
pub(crate) struct Listeners {
    /// One for each worker.
    pub(crate) proxy: Vec<TcpListener>,
    /// One for each worker, or none.
    pub(crate) tls: Vec<TcpListener>,
    pub(crate) status: TcpListener,
    /// What the process before had open for streams.
    pub(crate) streams: Inherited,
    pub(crate) addresses: Addresses,
    /// All of them once more, to be handed over.
    pub(crate) kept: Sockets,
}

/// Where a gateway listens; ports are real even where port 0 was asked for.
pub(crate) struct Addresses {
    pub(crate) proxy: SocketAddr,
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) status: SocketAddr,
}

impl Addresses {
    /// All the ports.
    pub(crate) fn taken(&self) -> Vec<u16> {
        self.ports().into_iter().chain([self.status.port()]).collect()
    }

    /// The ports that clients connect to.
    pub(crate) fn ports(&self) -> Vec<u16> {
        [Some(self.proxy), self.tls].iter().flatten().map(SocketAddr::port).collect()
    }
}

/// Opens everything that `settings` ask for, with what was `inherited` where it fits.
pub(crate) fn open(settings: &Settings, mut inherited: Sockets) -> Result<Listeners, StartError> {
    let mut open = |purpose, address, count, flag| {
        let wrong = |source| StartError::Bind { address, flag, source };
        let fits = |socket: &TcpListener| socket.local_addr().is_ok_and(|bound| is_asked_for(bound, address));
        let inherited = inherited.take::<TcpListener>(purpose).into_iter();
        let (mut sockets, others) = inherited.partition::<Vec<_>, _>(fits);
        if !others.is_empty() {
            tracing::warn!(%address, flag, "the address changed: whoever waits at the old one is turned away");
        }
        match sockets.first() {
            None => listen::bind(address, count).map_err(wrong),
            Some(first) => {
                let bound = first.local_addr().map_err(wrong)?;
                let missing = count.saturating_sub(sockets.len());
                sockets.extend(listen::bind_beside(bound, missing).map_err(wrong)?);
                Ok(sockets)
            }
        }
    };
    let workers = settings.workers.get();
    let proxy = open(Purpose::Proxy, settings.proxy, workers, "--proxy")?;
    // A socket that nobody accepts from would swallow its share of the connections: so many workers there must be.
    let workers = workers.max(proxy.len());
    let tls = match settings.tls.listener {
        Some(address) => open(Purpose::ProxyTls, address, workers, "--proxy-tls")?,
        None => Vec::new(),
    };
    let status = open(Purpose::Status, settings.status, 1, "--status")?.swap_remove(0);
    let addresses = Addresses {
        proxy: local_address(proxy.first(), settings.proxy),
        tls: settings.tls.listener.map(|asked| local_address(tls.first(), asked)),
        status: local_address(Some(&status), settings.status),
    };
    let mut kept = Sockets::default();
    let status_only = std::slice::from_ref(&status);
    for (purpose, sockets, address, flag) in [
        (Purpose::Proxy, proxy.as_slice(), settings.proxy, "--proxy"),
        (Purpose::ProxyTls, &tls, settings.tls.listener.unwrap_or(settings.proxy), "--proxy-tls"),
        (Purpose::Status, status_only, settings.status, "--status"),
    ] {
        for socket in sockets {
            let copied = kept.keep(purpose, socket);
            copied.map_err(|source| StartError::Bind { address, flag, source })?;
        }
    }
    let streams = Inherited::of(&mut inherited);
    Ok(Listeners { proxy, tls, status, streams, addresses, kept })
}

/// Whether a socket at `bound` is one that `asked` means; port 0 means any.
fn is_asked_for(bound: SocketAddr, asked: SocketAddr) -> bool {
    bound.ip() == asked.ip() && (asked.port() == 0 || asked.port() == bound.port())
}

/// The real address of a socket; what was asked for, should the system not know.
fn local_address(socket: Option<&TcpListener>, asked: SocketAddr) -> SocketAddr {
    socket.and_then(|socket| socket.local_addr().ok()).unwrap_or(asked)
}
