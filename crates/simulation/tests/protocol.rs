//! Many histories of delays, partitions, reordering, restarts, lost announcements, and a database that is away or put
//! back: whatever happens, every gateway ends with what was acknowledged, and none goes back on the way.
//!
//! `GATEWRIGHT_SEEDS=100..2000` runs other seeds; a failure names its seed, and what happened.

use std::ops::Range;

use gatewright_simulation::World;

/// The seeds that every run of the tests takes.
const SEEDS: Range<u64> = 0..6;

/// Things that happen in one history.
const EVENTS: usize = 60;

fn seeds() -> Range<u64> {
    chosen().unwrap_or(SEEDS)
}

/// The seeds that were asked for.
fn chosen() -> Option<Range<u64>> {
    let chosen = std::env::var("GATEWRIGHT_SEEDS").ok()?;
    let (first, end) = chosen.split_once("..")?;
    Some(first.parse().ok()?..end.parse().ok()?)
}

fn live_through(seed: u64, has_disks: bool) {
    let mut world = World::new(seed, has_disks);
    world.suffer(EVENTS);
    world.converge();
}

#[test]
fn whatever_happens_on_the_network_every_gateway_ends_with_what_was_acknowledged() {
    seeds().for_each(|seed| live_through(seed, false));
}

#[test]
fn gateways_that_start_from_their_disks_end_with_what_was_acknowledged_too() {
    seeds().for_each(|seed| live_through(seed, true));
}
