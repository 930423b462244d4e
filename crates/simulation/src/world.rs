//! Control planes that share a database, gateways that follow them, and what may happen to all of them.
//!
//! What was acknowledged is written down beside the database, so that the end can be compared with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use gatewright_control_plane::simulation::Database;
use gatewright_gateway::config::{DeniedNetworks, Ports, Tls};
use gatewright_gateway::simulation::{Observed, gateway};
use gatewright_gateway::{Limits, Settings, Trust};
use gatewright_model::digest::ContentDigest;
use gatewright_model::id::ServiceId;
use gatewright_model::protocol::Epoch;
use gatewright_model::snapshot::{PublishedService, Revision};
use serde_json::json;
use tempfile::TempDir;
use turmoil::Sim;
use turmoil::net::TcpListener;

use crate::network::{Network, SYNC_PORT};

/// Control planes in a world.
pub const CONTROL_PLANES: usize = 2;

/// Gateways in a world.
pub const GATEWAYS: usize = 5;

/// Services that are published, again and again.
const SERVICES: u8 = 12;

/// One step of the simulated time.
const TICK: Duration = Duration::from_millis(5);

/// The slowest message.
const LATENCY_MAX: Duration = Duration::from_millis(200);

/// How much time the gateways get at the end: a connection that is dead without a word is found out by its silence.
const CONVERGENCE_MAX: Duration = Duration::from_secs(90);

/// A gateway as it is seen, by its number; none: it has not started.
type Gateways = Arc<Mutex<BTreeMap<usize, Observed>>>;

/// Everything that is simulated.
pub struct World {
    seed: u64,
    sim: Sim<'static>,
    random: Rng,
    database: Database,
    backup: Option<(Database, Acknowledged)>,
    restores: u64,
    /// The newest version of each service whose publish was acknowledged; none: it was taken out.
    acknowledged: Acknowledged,
    published: u32,
    gateways: Gateways,
    /// What each gateway had at the last look.
    had: BTreeMap<usize, (Epoch, Revision)>,
    down: BTreeSet<String>,
    disks: Option<TempDir>,
    history: Vec<String>,
}

type Acknowledged = BTreeMap<ServiceId, Option<String>>;

fn control_plane_name(number: usize) -> String {
    format!("control-plane-{number}")
}

fn gateway_name(number: usize) -> String {
    format!("gateway-{number}")
}

impl World {
    /// The world of a seed. Its gateways may have disks that outlive them; without, they lose everything with a
    /// restart.
    ///
    /// # Panics
    /// If there is no temporary directory.
    #[must_use]
    pub fn new(seed: u64, has_disks: bool) -> Self {
        // The jitter of what is simulated comes from here, for all of it runs on this thread.
        fastrand::seed(seed);
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .enable_random_order()
            .tick_duration(TICK)
            .max_message_latency(LATENCY_MAX)
            .simulation_duration(Duration::from_secs(60 * 60))
            .tcp_capacity(1 << 16)
            .build();
        let database = Database::new("default".parse().expect("an id"));
        let gateways = Gateways::default();
        let disks = has_disks.then(|| TempDir::new().expect("a temporary directory"));
        for number in 0..CONTROL_PLANES {
            let database = database.clone();
            sim.host(control_plane_name(number), move || serve(database.clone()));
        }
        for number in 0..GATEWAYS {
            let gateways = Arc::clone(&gateways);
            let disk = disks.as_ref().map(|disks| disks.path().join(number.to_string()));
            sim.host(gateway_name(number), move || run(number, disk.clone(), Arc::clone(&gateways)));
        }
        Self {
            seed,
            sim,
            random: Rng::with_seed(seed),
            database,
            backup: None,
            restores: 0,
            acknowledged: Acknowledged::new(),
            published: 0,
            gateways,
            had: BTreeMap::new(),
            down: BTreeSet::new(),
            disks,
            history: Vec::new(),
        }
    }

    /// Lets as many things happen, one after the other.
    pub fn suffer(&mut self, events: usize) {
        for _ in 0..events {
            self.happen();
            let pause = Duration::from_millis(self.random.u64(5..800));
            self.pass(pause);
        }
    }

    /// Ends all faults, and waits until every gateway has what was acknowledged.
    ///
    /// # Panics
    /// If that takes too long, or something was lost.
    pub fn converge(&mut self) {
        self.database.set_available(true);
        for control_plane in 0..CONTROL_PLANES {
            for gateway in 0..GATEWAYS {
                let (control_plane, gateway) = (control_plane_name(control_plane), gateway_name(gateway));
                self.sim.repair(control_plane.as_str(), gateway.as_str());
                self.sim.release(control_plane.as_str(), gateway.as_str());
            }
        }
        for name in std::mem::take(&mut self.down) {
            self.sim.bounce(name);
        }
        let deadline = self.sim.elapsed() + CONVERGENCE_MAX;
        while !self.has_converged() {
            let is_late = self.sim.elapsed() > deadline;
            assert!(!is_late, "{:?} is not served everywhere: {:?}", self.database.newest(), self.have());
            self.pass(TICK);
        }
        self.note("everything is the same everywhere");
        for (number, gateway) in self.observed() {
            for (service, version) in &self.acknowledged {
                assert_eq!(gateway.serves(service), *version, "gateway {number}, service {service}");
            }
            let (full, mismatches) = gateway.resyncs();
            assert_eq!(mismatches, 0, "gateway {number}: a change was lost or doubled");
            let allowed = 1 + self.restores;
            assert!(full <= allowed, "gateway {number} was sent everything {full} times, not {allowed}");
        }
    }

    fn happen(&mut self) {
        let control_plane = control_plane_name(self.random.usize(0..CONTROL_PLANES));
        let number = self.random.usize(0..GATEWAYS);
        let gateway = gateway_name(number);
        let (from, to) = (control_plane.as_str(), gateway.as_str());
        match self.random.u8(0..20) {
            0..9 => self.publish(),
            9 => self.sim.partition(from, to),
            10 => self.sim.partition_oneway(from, to),
            11 => self.sim.partition_oneway(to, from),
            12 => self.sim.repair(from, to),
            13 => self.sim.hold(from, to),
            14 => self.sim.release(from, to),
            15 => self.turn(control_plane.clone()),
            16 => self.turn_gateway(number),
            17 => self.database.set_available(false),
            18 => self.database.set_available(true),
            _ => self.back_up_or_restore(),
        }
        self.note(&format!("between {control_plane} and {gateway}"));
    }

    /// Publishes a version of some service, or takes it out.
    fn publish(&mut self) {
        self.published += 1;
        let name = format!("s{}", self.random.u8(0..SERVICES));
        let id: ServiceId = name.parse().expect("an id");
        let version = (self.random.u8(0..8) > 0).then(|| format!("1.0.{}", self.published));
        let service = version.as_ref().map(|version| service(&name, version));
        // Whoever asked is told of a failure, and nothing was acknowledged.
        if self.database.change(&id, service, self.random.u8(0..4) > 0).is_ok() {
            self.acknowledged.insert(id, version);
        }
    }

    /// What runs crashes, and what crashed starts again.
    fn turn(&mut self, name: String) {
        if self.down.remove(&name) {
            self.sim.bounce(name);
        } else {
            self.sim.crash(name.as_str());
            self.down.insert(name);
        }
    }

    /// The same for a gateway; now and then its disk goes with it.
    fn turn_gateway(&mut self, number: usize) {
        if let (Some(_), Some(gateway)) = (&self.disks, self.observed().get(&number)) {
            // What would be half written is for other tests.
            until(|| gateway.is_kept());
        }
        self.turn(gateway_name(number));
        self.gateways.lock().expect("nobody panics with the lock").remove(&number);
        let loses_disk = self.random.u8(0..3) == 0;
        if let Some(disks) = self.disks.as_ref().filter(|_| loses_disk) {
            let _ = std::fs::remove_dir_all(disks.path().join(number.to_string()));
        }
        if self.disks.is_none() || loses_disk {
            self.had.remove(&number);
        }
    }

    fn back_up_or_restore(&mut self) {
        match self.backup.take() {
            None => self.backup = Some((self.database.backup(), self.acknowledged.clone())),
            Some((backup, acknowledged)) => {
                self.database.restore(&backup);
                self.acknowledged = acknowledged;
                self.restores += 1;
            }
        }
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) {
        let until = self.sim.elapsed() + time;
        while self.sim.elapsed() < until {
            self.sim.step().expect("no host fails");
            self.look();
        }
    }

    /// Within an epoch, no gateway goes back.
    fn look(&mut self) {
        for (number, (epoch, revision, _)) in self.have() {
            let before = self.had.insert(number, (epoch.clone(), revision));
            if let Some((epoch_before, before)) = before {
                let went_back =
                    epoch.number < epoch_before.number || epoch == epoch_before && revision < before;
                assert!(!went_back, "gateway {number} went back from {before} to {revision}");
            }
        }
    }

    fn has_converged(&self) -> bool {
        let newest = self.database.newest();
        let heartbeats = self.database.heartbeats();
        let reported = |number| {
            let id = gateway_name(number).parse().expect("an id");
            heartbeats.get(&id).is_some_and(|heartbeat| heartbeat.applied == Some(newest.1))
        };
        let have = self.have();
        (0..GATEWAYS).all(|number| have.get(&number) == Some(&newest) && reported(number))
            && self.observed().values().all(|gateway| gateway.serves_revision() == Some(newest.1))
    }

    fn have(&self) -> BTreeMap<usize, (Epoch, Revision, ContentDigest)> {
        self.observed().into_iter().filter_map(|(number, gateway)| Some((number, gateway.has()?))).collect()
    }

    fn observed(&self) -> BTreeMap<usize, Observed> {
        self.gateways.lock().expect("nobody panics with the lock").clone()
    }

    fn note(&mut self, what: &str) {
        let have: Vec<_> = self.had.values().map(|(epoch, revision)| (epoch.number, revision.0)).collect();
        self.history.push(format!(
            "{:?} {what}: {:?}, {have:?}",
            self.sim.elapsed(),
            self.database.newest().1
        ));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, has_disks) = (self.seed, self.disks.is_some());
            eprintln!("seed {seed}, disks: {has_disks}; then:\n{}", self.history.join("\n"));
        }
    }
}

/// One control plane.
async fn serve(database: Database) -> turmoil::Result {
    let server = database.control_plane();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, SYNC_PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let server = server.clone();
        tokio::spawn(async move { server.serve(stream).await });
    }
}

/// One gateway.
async fn run(number: usize, disk: Option<std::path::PathBuf>, gateways: Gateways) -> turmoil::Result {
    let control_planes: Vec<String> = (0..CONTROL_PLANES).map(control_plane_name).collect();
    let start = || {
        let connector = Arc::new(Network::new(control_planes.clone(), number));
        gateway(settings(number, disk.as_deref()), connector)
    };
    // The thread that wrote for the life before may be about to end.
    let mut started = start();
    until(|| {
        if started.is_err() {
            started = start();
        }
        started.is_ok()
    });
    let (observed, running) = started?;
    gateways.lock().expect("nobody panics with the lock").insert(number, observed);
    running.await;
    Ok(())
}

/// Waits for a real thread, while the simulated time stands still.
fn until(mut is_so: impl FnMut() -> bool) {
    const PATIENCE: Duration = Duration::from_secs(20);
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "a thread of a gateway does not come to its end");
        std::thread::yield_now();
    }
}

fn settings(number: usize, disk: Option<&Path>) -> Settings {
    let nowhere = (Ipv4Addr::LOCALHOST, 0).into();
    Settings {
        gateway_group_id: "default".parse().expect("an id"),
        instance_id: gateway_name(number).parse().expect("an id"),
        instance_token: "simulated".to_owned(),
        data_dir: disk.map(Path::to_owned),
        plugin_dir: None,
        proxy: nowhere,
        tls: Tls::default(),
        status: nowhere,
        workers: NonZeroUsize::MIN,
        limits: Limits::default(),
        access_log: None,
        memory: None,
        trust: Trust::default(),
        denied: DeniedNetworks::default(),
        debug_token: None,
        stream_ports: Ports::default(),
        measures_plugins: false,
    }
}

fn service(name: &str, version: &str) -> PublishedService {
    let document = json!({
        "service_id": name, "service_version_id": format!("{name}-{version}"), "version": version, "name": name,
        "type": "http", "routes": [{"route_id": format!("{name}-r"), "name": "r", "paths": [format!("/{name}/*")]}],
        "strip_path_prefix": true, "upstream": {"nodes": [{"host": "127.0.0.1", "port": 80, "weight": 1}]},
        "status": 1
    });
    serde_json::from_value(document).expect("a published service")
}
