//! A TCP relay that reads nothing of what it passes on: no proxy can cost less, so it is the floor of the bench.
//!
//! One thread, one connection to the backend for each client connection, and one buffer.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::Context;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
const BUFFER_BYTES: usize = 64 * 1024;

/// Where to listen and where to pass bytes on to.
#[derive(clap::Args, Debug)]
pub(crate) struct Wish {
    listen: SocketAddr,
    backend: SocketAddr,
}

/// Relays until the process is ended.
pub(crate) fn run(wish: &Wish) -> anyhow::Result<()> {
    let mut listener = TcpListener::bind(wish.listen).context("cannot listen")?;
    let mut poll = Poll::new().context("cannot poll")?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut free = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        poll.poll(&mut events, None).context("cannot poll")?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((client, _)) = listener.accept() {
                    let slot = free.pop().unwrap_or(pairs.len());
                    if slot == pairs.len() {
                        pairs.push(None);
                    }
                    pairs[slot] = Pair::open(&poll, slot, client, wish.backend).ok();
                }
                continue;
            }
            // Two tokens for each pair: its client and its backend.
            let slot = event.token().0 / 2;
            if let Some(place) = pairs.get_mut(slot)
                && let Some(pair) = place
                && !pair.advance(&mut buffer)
            {
                *place = None;
                free.push(slot);
            }
        }
    }
}

struct Pair {
    upload: Flow,
    download: Flow,
    client: TcpStream,
    backend: TcpStream,
}

/// One direction: what was read and not written yet, and whether the sender is done.
#[derive(Default)]
struct Flow {
    pending: Vec<u8>,
    ended: bool,
}

impl Pair {
    fn open(poll: &Poll, slot: usize, mut client: TcpStream, backend: SocketAddr) -> std::io::Result<Self> {
        let mut backend = TcpStream::connect(backend)?;
        client.set_nodelay(true)?;
        backend.set_nodelay(true)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut client, Token(slot * 2), both)?;
        poll.registry().register(&mut backend, Token(slot * 2 + 1), both)?;
        Ok(Self { upload: Flow::default(), download: Flow::default(), client, backend })
    }

    /// Passes on what is there; `false`: the pair is over.
    fn advance(&mut self, buffer: &mut [u8]) -> bool {
        let Self { upload, download, client, backend } = self;
        upload.advance(client, backend, buffer) && download.advance(backend, client, buffer)
    }
}

impl Flow {
    fn advance(&mut self, from: &mut TcpStream, to: &mut TcpStream, buffer: &mut [u8]) -> bool {
        loop {
            match write(to, &self.pending) {
                Some(count) => drop(self.pending.drain(..count)),
                None => return false,
            }
            if !self.pending.is_empty() || self.ended {
                return !self.ended || !self.pending.is_empty();
            }
            match from.read(buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => match write(to, &buffer[..count]) {
                    Some(written) => self.pending.extend_from_slice(&buffer[written..count]),
                    None => return false,
                },
                Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected),
            }
        }
    }
}

/// Writes what fits; `None`: the receiver is gone.
fn write(to: &mut TcpStream, data: &[u8]) -> Option<usize> {
    let mut written = 0;
    while written < data.len() {
        match to.write(&data[written..]) {
            Ok(count) => written += count,
            // Connecting takes a moment, and the event that ends it comes back here.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
            Err(_) => return None,
        }
    }
    Some(written)
}
