//! What a worker accepts for streams: from its own socket of every open port.
//!
//! A port that is closed takes in what waits in its socket first, which closing it would reset.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;

use super::listeners::{Open, Opened, Place};
use super::{connection, datagrams};
use crate::worker::{Worker, accept_each, drain};

/// Accepts from what is open, until it is dropped.
pub(crate) async fn follow(worker: &Rc<Worker>, mut open: watch::Receiver<Open>) {
    let mut accepting: BTreeMap<Place, (Arc<Opened>, watch::Sender<()>)> = BTreeMap::new();
    loop {
        let now = open.borrow_and_update().clone();
        // Dropped, its sender tells the task that accepts there.
        accepting
            .retain(|place, (opened, _)| now.ports.get(place).is_some_and(|now| Arc::ptr_eq(now, opened)));
        for (place, opened) in now.ports.iter() {
            if !accepting.contains_key(place) {
                let (closing, closed) = watch::channel(());
                begin(worker, *place, opened, closed);
                accepting.insert(*place, (Arc::clone(opened), closing));
            }
        }
        worker.streams_changed.notify_waiters();
        if open.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn begin(worker: &Rc<Worker>, (carrier, port): Place, opened: &Opened, closed: watch::Receiver<()>) {
    let begun = match opened {
        Opened::Tcp(tcp) => tcp.get(worker.index).map(|socket| begin_tcp(worker, socket, closed)),
        Opened::Udp(udp) => udp.get(worker.index).map(|socket| begin_udp(worker, socket, closed)),
    };
    if let Some(Err(error)) = begun {
        tracing::error!(port, carrier = carrier.name(), %error, "a worker cannot accept streams");
    }
}

fn begin_tcp(
    worker: &Rc<Worker>,
    socket: &std::net::TcpListener,
    mut closed: watch::Receiver<()>,
) -> io::Result<()> {
    let (worker, listener) = (Rc::clone(worker), TcpListener::from_std(socket.try_clone()?)?);
    tokio::task::spawn_local(async move {
        tokio::select! {
            () = accept_each(&listener, |stream, peer| admit(&worker, stream, peer)) => {}
            // It is never written to, only dropped.
            _ = closed.changed() => {}
        }
        drain(listener, |stream, peer| admit(&worker, stream, peer));
    });
    Ok(())
}

fn begin_udp(
    worker: &Rc<Worker>,
    socket: &std::net::UdpSocket,
    mut closed: watch::Receiver<()>,
) -> io::Result<()> {
    let (worker, socket) = (Rc::clone(worker), UdpSocket::from_std(socket.try_clone()?)?);
    tokio::task::spawn_local(async move {
        tokio::select! {
            () = datagrams::receive(&worker, socket) => {}
            _ = closed.changed() => {}
        }
    });
    Ok(())
}

fn admit(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    if let Some(guest) = worker.door.enter(peer) {
        worker.stream_begun();
        tokio::task::spawn_local(Box::pin(connection::serve(Rc::clone(worker), guest, stream, peer)));
    }
}
