//! How a gateway that stops hurries those who would stay: told to all workers, a step at a time.

use tokio::sync::watch;

/// What has been told so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Departure {
    /// WebSockets say goodbye.
    pub(crate) websockets_go: bool,
    /// Only streams are waited for.
    pub(crate) streams_only: bool,
    /// Streams end.
    pub(crate) streams_go: bool,
}

/// Waits until `step` has been told.
pub(crate) async fn told(mut departure: watch::Receiver<Departure>, step: fn(&Departure) -> bool) {
    // An error means that nothing is told any more.
    if departure.wait_for(step).await.is_err() {
        std::future::pending::<()>().await;
    }
}
