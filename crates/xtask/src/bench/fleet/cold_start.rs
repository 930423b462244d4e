//! A gateway that starts from its disk, with no control plane to be seen.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::cores;
use super::process::{ControlPlane, Gateway};

/// What a start took.
pub(super) struct ColdStart {
    elapsed: Duration,
    resident_bytes: u64,
}

/// Starts a gateway until it has everything on disk, and once more after the control plane is gone.
pub(super) fn measure(program: &Path, control_plane: ControlPlane, kept: &Path) -> anyhow::Result<ColdStart> {
    let first = Gateway::of(program, &control_plane, kept)?;
    first.until_kept()?;
    drop(first);
    let (sync, token_file) = (control_plane.sync, kept.join("token"));
    std::fs::write(&token_file, control_plane.token()?)?;
    drop(control_plane);
    let begun = Instant::now();
    let gateway = Gateway::start(program, sync, &token_file, kept)?;
    gateway.until_ready()?;
    let elapsed = begun.elapsed();
    Ok(ColdStart { elapsed, resident_bytes: cores::resident_bytes(gateway.process.pid())? })
}

impl ColdStart {
    pub(super) fn row(&self) -> String {
        format!(
            "| cold start from disk, until ready | {:.2} s (half a second of it waits for a control plane); {} MB afterwards |",
            self.elapsed.as_secs_f64(),
            self.resident_bytes >> 20
        )
    }
}
