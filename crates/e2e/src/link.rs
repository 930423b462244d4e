//! A stretch of network between two processes that a test can cut, mend and tamper with.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// Forwards TCP connections to one address.
pub struct Link {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_cut: Mutex<bool>,
    mended: Condvar,
    tampering: Option<Tampering>,
}

/// A text that is replaced on the way by another one, equally long.
struct Tampering {
    before: Vec<u8>,
    after: Vec<u8>,
    /// How often; none: always.
    left: Option<AtomicUsize>,
}

impl Tampering {
    fn apply(&self, bytes: &mut [u8]) {
        let mut start = 0;
        let found = |window: &[u8]| window == self.before;
        while let Some(place) = bytes[start..].windows(self.before.len()).position(found) {
            let take = |left: usize| left.checked_sub(1);
            let is_over =
                |left: &AtomicUsize| left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err();
            if self.left.as_ref().is_some_and(is_over) {
                return;
            }
            bytes[start + place..start + place + self.after.len()].copy_from_slice(&self.after);
            start += place + self.after.len();
        }
    }
}

impl State {
    /// Waits as long as the link is cut: bytes are lost to nobody, they just do not arrive, as in a partition.
    fn wait_until_mended(&self) {
        let is_cut = self.is_cut.lock().expect("nobody panics with the lock");
        drop(self.mended.wait_while(is_cut, |is_cut| *is_cut).expect("nobody panics with the lock"));
    }
}

impl Link {
    /// A link to `target`.
    #[must_use]
    pub fn to(target: SocketAddr) -> Self {
        Self::start(target, None)
    }

    /// A link to `target` on which `before` is replaced by `after`, `times` times or always.
    ///
    /// # Panics
    /// If the two differ in length.
    #[must_use]
    pub fn tampering(target: SocketAddr, before: &str, after: &str, times: Option<usize>) -> Self {
        assert_eq!(before.len(), after.len(), "what is counted elsewhere keeps its length");
        let (before, after) = (before.as_bytes().to_vec(), after.as_bytes().to_vec());
        Self::start(target, Some(Tampering { before, after, left: times.map(AtomicUsize::new) }))
    }

    fn start(target: SocketAddr, tampering: Option<Tampering>) -> Self {
        let state = Arc::new(State { tampering, ..State::default() });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || forward(&client, target, &state));
            }
        });
        Self { address, state }
    }

    /// Where the link begins.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets nothing through any more.
    ///
    /// # Panics
    /// If a thread of the link has panicked.
    pub fn cut(&self) {
        *self.state.is_cut.lock().expect("nobody panics with the lock") = true;
    }

    /// Lets everything through again.
    ///
    /// # Panics
    /// If a thread of the link has panicked.
    pub fn mend(&self) {
        *self.state.is_cut.lock().expect("nobody panics with the lock") = false;
        self.state.mended.notify_all();
    }
}

fn forward(client: &TcpStream, target: SocketAddr, state: &Arc<State>) {
    state.wait_until_mended();
    let Ok(server) = TcpStream::connect(target) else { return };
    let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { return };
    let shared = Arc::clone(state);
    let answers = std::thread::spawn(move || copy(&to, &from, &shared));
    copy(client, &server, state);
    let _ = answers.join();
}

fn copy(mut from: &TcpStream, mut to: &TcpStream, state: &State) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        state.wait_until_mended();
        let bytes = &mut buffer[..length];
        if let Some(tampering) = &state.tampering {
            tampering.apply(bytes);
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
