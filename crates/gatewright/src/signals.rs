//! SIGTERM and SIGINT: the first one asks for an orderly stop, the second one for an immediate end. SIGHUP: the access
//! log is opened anew. SIGUSR2 upgrades a gateway ([`crate::upgrade`]) and is declined by every other process.

use std::future::Future;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::commands::Failure;

/// Runs `reopen` on every SIGHUP from now on.
#[cfg(feature = "gateway")]
pub(crate) fn on_hangup(reopen: impl Fn() + Send + 'static) -> Result<(), Failure> {
    on_each(SignalKind::hangup(), reopen)
}

/// Answers SIGUSR2 in a process that cannot be replaced while it runs.
#[cfg(feature = "control-plane")]
pub(crate) fn decline_upgrade() -> Result<(), Failure> {
    on_each(SignalKind::user_defined2(), || {
        tracing::warn!(
            "SIGUSR2 is ignored: only `gatewright gateway` is upgraded while it runs; restart this process"
        );
    })
}

/// Runs `act` on every signal of the kind from now on; without this call the signal would end the process.
fn on_each(kind: SignalKind, act: impl Fn() + Send + 'static) -> Result<(), Failure> {
    let listening = signal(kind);
    let mut signals = listening.map_err(|source| Failure::Start { what: "listening for signals", source })?;
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            act();
        }
    });
    Ok(())
}

/// The two signals, listened to from its creation on.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over both signals; from now on they no longer end the process by themselves.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = || -> io::Result<Self> {
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            })
        };
        listen().map_err(|source| Failure::Start { what: "listening for signals", source })
    }

    /// Gets ready by `preparation` and then runs until the first signal; ends early if getting ready fails.
    #[cfg(feature = "control-plane")]
    pub(crate) async fn run(
        &mut self,
        preparation: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        let endless = async {
            preparation.await?;
            std::future::pending().await
        };
        self.run_until(endless).await
    }

    /// Runs `work` until it ends or the first signal comes.
    pub(crate) async fn run_until(
        &mut self,
        work: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        tokio::select! {
            ended = work => ended,
            signal = self.next() => {
                tracing::info!(signal, "stopping: no new connections, requests in flight finish");
                Ok(())
            }
        }
    }

    /// Waits for `stop`; the second signal cuts that short.
    pub(crate) async fn stop(mut self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        let mut stop = Box::pin(stop);
        tokio::select! {
            () = &mut stop => Ok(()),
            signal = self.next() => {
                // Dropping what is being stopped could wait for its threads; they end with the process.
                std::mem::forget(stop);
                Err(Failure::StoppedAtOnce { signal })
            }
        }
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
