//! Sockets on their way from a process to the one that replaces it.
//!
//! The very sockets are handed over (`SCM_RIGHTS`), not merely their addresses: connections that the system has
//! accepted and nobody has fetched yet wait in the socket, and would be reset if it were closed.
//! The old process sends each socket with one byte that names it, then an end; the new one answers with one byte once
//! it serves. Until then the old process serves as before, so that a new one that fails changes nothing.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Sockets a process may hand over, of which streams may have one for each worker and port; more is a mistake on the
/// other side.
const SOCKETS_MAX: usize = 1 << 17;

/// After the last socket.
const END: u8 = b'.';

/// The new process serves.
const READY: u8 = b'!';

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Proxy,
    ProxyTls,
    Status,
    StreamTcp,
    StreamUdp,
}

impl Purpose {
    const ALL: [Self; 5] = [Self::Proxy, Self::ProxyTls, Self::Status, Self::StreamTcp, Self::StreamUdp];

    fn byte(self) -> u8 {
        match self {
            Self::Proxy => b'p',
            Self::ProxyTls => b't',
            Self::Status => b's',
            Self::StreamTcp => b'c',
            Self::StreamUdp => b'u',
        }
    }
}

/// Sockets, each with its purpose.
#[derive(Debug, Default)]
pub(crate) struct Sockets(Vec<(Purpose, OwnedFd)>);

impl Sockets {
    /// Keeps a second handle on `socket`.
    ///
    /// # Errors
    /// When the system has no more file descriptors.
    pub(crate) fn keep(&mut self, purpose: Purpose, socket: &impl AsFd) -> io::Result<()> {
        self.0.push((purpose, socket.as_fd().try_clone_to_owned()?));
        Ok(())
    }

    /// The same once more.
    ///
    /// # Errors
    /// When the system has no more file descriptors.
    pub(crate) fn copied(&self) -> io::Result<Self> {
        let mut copied = Self::default();
        self.0.iter().try_for_each(|(purpose, socket)| copied.keep(*purpose, socket))?;
        Ok(copied)
    }

    /// Takes out what is for `purpose`, in the order it was kept.
    pub(crate) fn take<S: From<OwnedFd>>(&mut self, purpose: Purpose) -> Vec<S> {
        let taken = self.0.extract_if(.., |(kept_for, _)| *kept_for == purpose);
        taken.map(|(_, socket)| S::from(socket)).collect()
    }

    fn send(&self, peer: &UnixStream) -> io::Result<()> {
        for (purpose, socket) in &self.0 {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let sockets = [socket.as_fd()];
            control.push(SendAncillaryMessage::ScmRights(&sockets));
            sendmsg(peer, &[IoSlice::new(&[purpose.byte()])], &mut control, SendFlags::empty())?;
        }
        (&mut &*peer).write_all(&[END])
    }

    fn receive(peer: &UnixStream) -> io::Result<Self> {
        let mut sockets = Self::default();
        loop {
            let mut byte = [0];
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received =
                recvmsg(peer, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let socket: Option<OwnedFd> = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
                _ => None,
            });
            let purpose = Purpose::ALL.into_iter().find(|purpose| purpose.byte() == byte[0]);
            match (received.bytes, purpose, socket) {
                (0, _, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
                (_, Some(purpose), Some(socket)) if sockets.0.len() < SOCKETS_MAX => {
                    sockets.0.push((purpose, socket));
                }
                (_, None, None) if byte[0] == END => return Ok(sockets),
                _ => return Err(io::Error::other("what was handed over is not understood")),
            }
        }
    }
}

/// What a new process was handed, and the way back to the old one.
#[derive(Debug)]
pub struct Inheritance {
    pub(crate) sockets: Sockets,
    peer: UnixStream,
}

impl Inheritance {
    /// Takes what the process at the other end of `peer` hands over.
    ///
    /// # Errors
    /// When it hands over nothing, or not what a gateway needs.
    pub fn receive(peer: UnixStream) -> io::Result<Self> {
        Ok(Self { sockets: Sockets::receive(&peer)?, peer })
    }

    /// Tells the old process that this one serves, so that it may go.
    ///
    /// # Errors
    /// When there is no old process any more.
    pub fn confirm(mut self) -> io::Result<()> {
        self.peer.write_all(&[READY])
    }
}

/// Hands `sockets` to the process at the other end of `peer` and waits until it serves.
pub(crate) fn hand_over(sockets: &Sockets, peer: UnixStream) -> io::Result<()> {
    sockets.send(&peer)?;
    let mut answer = [0];
    (&peer).read_exact(&mut answer)?;
    if answer == [READY] { Ok(()) } else { Err(io::Error::other("the new process answers something else")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    #[test]
    fn connections_that_wait_in_a_socket_survive_its_first_holder() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (proxy, status) = (listener(), listener());
        let mut sockets = Sockets::default();
        sockets.keep(Purpose::Proxy, &proxy).unwrap();
        sockets.keep(Purpose::Status, &status).unwrap();
        let mut waiting = TcpStream::connect(proxy.local_addr().unwrap()).unwrap();
        let old = std::thread::spawn(move || hand_over(&sockets, ours));
        let mut inheritance = Inheritance::receive(theirs).unwrap();
        drop((proxy, status));
        assert_eq!(inheritance.sockets.take::<TcpListener>(Purpose::ProxyTls).len(), 0);
        assert_eq!(inheritance.sockets.take::<TcpListener>(Purpose::Status).len(), 1);
        let proxy = inheritance.sockets.take::<TcpListener>(Purpose::Proxy).remove(0);
        inheritance.confirm().unwrap();
        old.join().unwrap().unwrap();
        let (mut accepted, _) = proxy.accept().unwrap();
        accepted.write_all(b"still here").unwrap();
        drop(accepted);
        let mut said = String::new();
        waiting.read_to_string(&mut said).unwrap();
        assert_eq!(said, "still here");
    }

    #[test]
    fn a_new_process_that_ends_early_is_noticed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(hand_over(&Sockets::default(), ours).is_err());
    }

    #[test]
    fn what_is_no_handover_is_refused() {
        for said in [&b""[..], b"p", b"x", b"GET / HTTP/1.1"] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(said).unwrap();
            drop(ours);
            assert!(Inheritance::receive(theirs).is_err(), "{said:?}");
        }
    }
}
