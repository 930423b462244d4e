//! Power cuts: `kill -9` at any moment of a publish loses nothing that was acknowledged and leaves nothing half done.

use std::sync::mpsc::{Sender, channel};

use gatewright_e2e::admin::publish_wish;
use gatewright_e2e::{Admin, Upstream, World, wait};
use serde_json::json;

/// How often the process is killed.
const KILLS: usize = 8;

/// What the control plane acknowledged.
enum Acknowledged {
    /// The draft of a version.
    Template,
    /// The version itself.
    Version(u64),
}

/// Designs and publishes versions `1.0.N` from `first` on, until nobody answers any more.
/// Version N serves exactly `/v/N`.
fn publish_until_killed(admin: &Admin, first: u64, acknowledged: &Sender<Acknowledged>) {
    for number in first.. {
        let route = json!({"name": "r", "service_id": "s", "paths": [format!("/v/{number}")]}).to_string();
        match admin.try_send("PUT", "/api/routes/template/s-0", &route) {
            Ok(answer) if answer.is_accepted() => acknowledged.send(Acknowledged::Template).unwrap(),
            Ok(answer) => panic!("version {number} cannot be designed: {answer:?}"),
            Err(_) => return,
        }
        let wish = publish_wish("s", &format!("1.0.{number}")).to_string();
        match admin.try_send("POST", "/api/services/publish", &wish) {
            Ok(answer) if answer.is_accepted() => acknowledged.send(Acknowledged::Version(number)).unwrap(),
            Ok(answer) => panic!("version {number} is refused: {answer:?}"),
            Err(_) => return,
        }
    }
}

/// Publishes in the background, kills the process at the `moment`th acknowledgement and hands back the versions that
/// were acknowledged.
fn kill_while_publishing(world: &mut World, first: u64, moment: usize) -> Vec<u64> {
    let (sender, receiver) = channel();
    let admin = world.admin.clone();
    let publisher = std::thread::spawn(move || publish_until_killed(&admin, first, &sender));
    let mut versions = Vec::new();
    let mut note = |acknowledged| {
        if let Acknowledged::Version(number) = acknowledged {
            versions.push(number);
        }
    };
    for _ in 0..moment {
        note(receiver.recv_timeout(wait::DEADLINE).expect("the control plane acknowledges"));
    }
    world.process.kill();
    publisher.join().expect("nothing was refused before the kill");
    receiver.iter().for_each(note);
    versions
}

#[test]
fn every_acknowledged_publication_survives_and_none_is_half_there() {
    let upstream = Upstream::echo();
    let mut world = World::start();
    world.admin.put_service("s", &json!({"name": "s", "upstream": {"nodes": upstream.nodes()}}));
    let mut next = 0;
    let mut all = Vec::new();
    for kill in 0..KILLS {
        // Another step of the work is under way at each kill.
        let acknowledged = kill_while_publishing(&mut world, next, 2 + kill);
        let last = *acknowledged.last().expect("at least one version was acknowledged");
        all.extend(acknowledged);
        world = world.start_again(&[]);

        let active = world.admin.active_version("s").expect("the service is still published");
        let active: u64 =
            active.strip_prefix("1.0.").and_then(|number| number.parse().ok()).expect("our number");
        // What was under way when the power went may have happened, but then as a whole.
        assert!(active == last || active == last + 1, "active is {active}, acknowledged was {last}");
        let active_path = format!("/v/{active}");
        wait::until_true("the active version is served", || {
            world.get("s.test", &active_path).status() == 200
        });
        for neighbour in [active.wrapping_sub(1), active + 1] {
            assert_eq!(world.get("s.test", &format!("/v/{neighbour}")).status(), 404, "{neighbour}");
        }
        next = active + 1;
    }
    for number in all {
        let wish = publish_wish("s", &format!("1.0.{number}")).to_string();
        let again = world.admin.send("POST", "/api/services/publish", &wish);
        assert!(again.is_refused(), "version {number} was acknowledged, so its number is taken: {again:?}");
    }
}
