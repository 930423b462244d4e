//! The runtime for everything that is no client request: configuration, status, health checks, names, registries, logs.

use std::ops::Deref;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::config::StartError;

/// Nobody waits for what runs here, so two are enough.
const BACKGROUND_THREADS: usize = 2;

/// What is no client request runs here. Dropped, it ends without waiting: that would block the runtime which drops it.
pub(crate) struct BackgroundRuntime {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl BackgroundRuntime {
    pub(crate) fn start() -> Result<Self, StartError> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(BACKGROUND_THREADS).thread_name("gatewright-background").enable_all();
        let started =
            builder.build().map_err(|source| StartError::Thread { what: "background runtime", source });
        started.map(|runtime| Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Deref for BackgroundRuntime {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for BackgroundRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
