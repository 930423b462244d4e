//! The end: whoever was being served is served, nobody new is, and the exit code is 0.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use gatewright_e2e::client::{self, Connection};
use gatewright_e2e::message::Response;
use gatewright_e2e::{Upstream, World, wait};
use serde_json::json;

/// A request that is in flight: its upstream has it and does not answer before it is told to.
struct Slow {
    answer: Sender<()>,
    client: JoinHandle<std::io::Result<Response>>,
}

/// Starts a world with a request in flight.
fn world_with_slow_request(arguments: &[&str]) -> (World, Slow) {
    let (arrived, arrival) = channel::<()>();
    let (answer, permission): (_, Receiver<()>) = channel();
    let (arrived, permission) = (Mutex::new(arrived), Mutex::new(permission));
    let upstream = Upstream::scripted(move |_, stream| {
        arrived.lock().unwrap().send(()).unwrap();
        if permission.lock().unwrap().recv().is_ok() {
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").unwrap();
        }
    });
    let world = World::start_with(arguments);
    let template = json!({"upstream": {"nodes": upstream.nodes()}});
    world.serve("slow", "1.0.0", &template, &[json!({"paths": ["/slow"]})]);
    let proxy = world.proxy;
    let client = std::thread::spawn(move || client::try_request(proxy, "GET", "s.test", "/slow", &[], b""));
    arrival.recv_timeout(wait::DEADLINE).expect("the request reaches the upstream");
    (world, Slow { answer, client })
}

fn until_nobody_new_is_served(world: &World) {
    wait::until_true("new connections are refused", || TcpStream::connect(world.proxy).is_err());
}

#[test]
fn a_request_in_flight_is_answered_before_the_process_ends() {
    let (mut world, slow) = world_with_slow_request(&[]);
    world.process.terminate();
    until_nobody_new_is_served(&world);
    slow.answer.send(()).unwrap();
    let response = slow.client.join().unwrap().expect("a whole response");
    assert_eq!((response.status(), response.text().as_str()), (200, "done"));
    assert_eq!(world.process.exit_code(), Some(0));
}

#[test]
fn an_idle_connection_does_not_hold_the_process_up() {
    let mut world = World::start();
    let mut idle = Connection::open(world.proxy).unwrap();
    idle.send("GET / HTTP/1.1\r\nHost: s.test\r\n\r\n").unwrap();
    assert_eq!(idle.response().unwrap().status(), 404);
    let start = std::time::Instant::now();
    world.process.terminate();
    assert_eq!(world.process.exit_code(), Some(0));
    assert!(idle.is_closed());
    assert!(start.elapsed().as_secs() < 20, "the deadline of 30 s is for requests in flight only");
}

#[test]
fn a_request_that_never_ends_is_cut_off_at_the_deadline() {
    let (mut world, slow) = world_with_slow_request(&["--shutdown-deadline", "1"]);
    world.process.terminate();
    assert_eq!(world.process.exit_code(), Some(0));
    let cut_off = slow.client.join().unwrap();
    assert!(
        cut_off.is_err() || cut_off.as_ref().is_ok_and(|response| response.status() >= 500),
        "{cut_off:?}"
    );
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let (mut world, slow) = world_with_slow_request(&["--shutdown-deadline", "3600"]);
    world.process.terminate();
    until_nobody_new_is_served(&world);
    world.process.terminate();
    assert_eq!(world.process.exit_code(), Some(1));
    assert!(world.process.stderr().contains("second signal"), "{}", world.process.stderr());
    assert!(slow.client.join().unwrap().is_err());
}
