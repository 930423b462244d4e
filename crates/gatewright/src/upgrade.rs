//! The executable is replaced while it runs: on SIGUSR2 a gateway starts the executable at its own path anew, hands
//! it the listening sockets, and goes once the new process serves.
//!
//! The new process has one end of a pair of sockets as its standard input and is told so by an environment variable;
//! everything else, arguments included, is what the old process was started with. If it fails or takes too long, the
//! old process goes on as if nothing had happened.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gatewright_gateway::{Gateway, Inheritance};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::commands::Failure;

/// Tells a new process that its standard input brings listening sockets. Not a flag: nobody but an old process can
/// set it to any use.
const MARK: &str = "_GATEWRIGHT_HANDOVER";

/// How long a new process may take until it serves.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// How this process was started.
pub(crate) struct Origin {
    /// Asked for at the start: later it would name the file that was replaced.
    executable: PathBuf,
    arguments: Vec<OsString>,
    /// Listened to from the start on: a signal that came earlier would end the process.
    asked: Signal,
}

impl Origin {
    /// Of this process; from now on SIGUSR2 no longer ends it by itself.
    pub(crate) fn of_this_process() -> Result<Self, Failure> {
        let look = || -> io::Result<Self> {
            Ok(Self {
                executable: std::env::current_exe()?,
                arguments: std::env::args_os().skip(1).collect(),
                asked: signal(SignalKind::user_defined2())?,
            })
        };
        look().map_err(|source| Failure::Start { what: "the upgrade on SIGUSR2", source })
    }

    /// Runs until a new process took over from `gateway`. Failures are logged and change nothing.
    pub(crate) async fn until_replaced(mut self, gateway: &Gateway) {
        loop {
            self.asked.recv().await;
            tracing::info!(executable = %self.executable.display(), "upgrading: a new process is started");
            match self.replace(gateway).await {
                Ok(pid) => {
                    tracing::info!(pid, "the new process serves; this one finishes what it has begun");
                    return;
                }
                Err(error) => tracing::error!(%error, "the upgrade failed; this process goes on"),
            }
        }
    }

    async fn replace(&self, gateway: &Gateway) -> io::Result<u32> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(READY_TIMEOUT))?;
        let mut command = Command::new(&self.executable);
        command.args(&self.arguments).env(MARK, "1").stdin(Stdio::from(OwnedFd::from(theirs)));
        let mut child = command.spawn()?;
        // The command holds the other end too, and would keep it open after the child has ended.
        drop(command);
        let outcome = gateway.hand_over(ours).await;
        outcome.inspect_err(|_| end(&mut child))?;
        Ok(child.id())
    }
}

/// Ends a new process that did not get ready.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// What an old process hands over, if this one was started by it.
pub(crate) fn inheritance() -> Result<Option<Inheritance>, Failure> {
    if std::env::var_os(MARK).is_none() {
        return Ok(None);
    }
    let receive = || {
        let peer = io::stdin().as_fd().try_clone_to_owned()?;
        Inheritance::receive(UnixStream::from(peer))
    };
    receive().map(Some).map_err(|source| Failure::Start { what: "taking over from the old process", source })
}

/// Tells the service manager, if there is one, that the process `pid` is the one that serves now (`sd_notify`).
pub(crate) fn notify_ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = notify(&path, &format!("READY=1\nMAINPID={}", std::process::id())) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

fn notify(path: &OsString, text: &str) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    // A name that begins with `@` is not in the file system.
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address).map(drop)
}
