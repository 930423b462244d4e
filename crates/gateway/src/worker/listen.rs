//! Listeners: one per worker on the same address, between which the kernel spreads connections (`SO_REUSEPORT`).

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// Connections that may wait to be accepted, per listener.
const BACKLOG: i32 = 4096;

/// When a silent connection is probed, how often, and after how many lost probes it is given up.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES_MAX: u32 = 3;

/// Binds `count` listeners to `address`. With port 0 the system chooses a port, the same for all.
///
/// # Errors
/// When the address is not ours or the port is taken, also by a process that would share it: two gateways that
/// silently divide the traffic of a port are a mistake, not a wish.
pub(crate) fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    if address.port() != 0 {
        drop(listener(address, false)?);
    }
    let first = listener(address, true)?;
    let bound = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(listener(bound, true)?);
    }
    Ok(listeners)
}

/// Binds `count` more listeners to an address on which this process already has some.
///
/// # Errors
/// When the system refuses.
pub(crate) fn bind_beside(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    (0..count).map(|_| listener(address, true)).collect()
}

/// Binds `count` sockets for datagrams to `address`; those of one client all come to the same.
///
/// # Errors
/// Like [`bind`].
pub(crate) fn bind_datagrams(address: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
    drop(datagrams(address, false)?);
    bind_datagrams_beside(address, count)
}

/// Binds `count` more to an address on which this process already has some.
///
/// # Errors
/// When the system refuses.
pub(crate) fn bind_datagrams_beside(address: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
    (0..count).map(|_| datagrams(address, true)).collect()
}

fn datagrams(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn listener(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Lets a restart bind while old connections are still in TIME_WAIT; never beside another listener.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // What follows is inherited by every connection that is accepted, for free. An answer leaves in one write where
    // it fits; waiting to merge writes only adds latency. A client that vanished without a word is found out by
    // probes.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL).with_retries(PROBES_MAX),
    )?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_listeners_share_the_port_the_system_chose() {
        let listeners = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let ports: Vec<u16> = listeners.iter().map(|one| one.local_addr().unwrap().port()).collect();
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }

    #[test]
    fn a_taken_port_is_refused_even_if_its_holder_would_share_it() {
        let held = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let address = held[0].local_addr().unwrap();
        assert_eq!(bind(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
