//! The executable is replaced and the gateway stopped under load: no client loses a request by it (D18).

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gatewright_e2e::client::{self, Connection};
use gatewright_e2e::{Admin, Process, Upstream, wait};
use serde_json::{Value, json};

const UPGRADES: usize = 3;

/// Clients of each kind, and how long each waits between two requests.
const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(5);

/// A control plane, and a gateway of two workers that serves one route.
fn start(directory: &Path, upstream: &Upstream) -> (Process, Process) {
    let (control_plane, mut gateway) = begin(directory, upstream, |arguments| Process::start(arguments, &[]));
    gateway.wait_ready();
    (control_plane, gateway)
}

/// The same of a gateway that may not be ready yet.
fn begin(directory: &Path, upstream: &Upstream, launch: fn(&[&str]) -> Process) -> (Process, Process) {
    let (control_plane, _, gateway) = begin_with(directory, upstream, &[], launch);
    (control_plane, gateway)
}

/// The same with further arguments of the gateway.
fn begin_with(
    directory: &Path,
    upstream: &Upstream,
    further: &[&str],
    launch: fn(&[&str]) -> Process,
) -> (Process, Admin, Process) {
    let (data_dir, free) = (directory.join("data"), "127.0.0.1:0");
    let data = data_dir.to_str().unwrap();
    let arguments = ["control-plane", "--data-dir", data, "--admin", free, "--sync", free];
    let mut control_plane = Process::start(&arguments, &[]);
    control_plane.wait_ready();
    let key = std::fs::read_to_string(data_dir.join("admin-key")).unwrap();
    let admin = Admin::new(control_plane.address("admin API"), Some(key.trim()));
    admin.put_service("s", &json!({"name": "s", "upstream": {"nodes": upstream.nodes()}}));
    admin.put_route("s-0", &json!({"name": "r", "service_id": "s", "paths": ["/*"]}));
    admin.publish("s", "1.0.0");

    let sync = format!("http://{}", control_plane.address("sync"));
    let (token_file, kept) = (data_dir.join("instance-token"), directory.join("gateway"));
    let arguments = [
        ["gateway", "--control-plane"],
        [&sync, "--token-file"],
        [token_file.to_str().unwrap(), "--proxy"],
        [free, "--status"],
        [free, "--data-dir"],
        [kept.to_str().unwrap(), "--workers"],
    ];
    let arguments: Vec<&str> =
        arguments.into_iter().flatten().chain(["2", "--connections-max", "1000"]).collect();
    (control_plane, admin, launch(&[arguments.as_slice(), further].concat()))
}

/// Clients that ask again and again until they are told to stop, and tell how many answers they got and what went
/// wrong.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Load {
    fn start(proxy: SocketAddr, ask: fn(SocketAddr, &AtomicBool) -> (usize, Vec<String>)) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || ask(proxy, &stop))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { stop, clients }
    }

    fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.clients.into_iter().map(|client| client.join().expect("a client"));
        ended.fold((0, Vec::new()), |(answers, wrong), (more, worse)| {
            (answers + more, [wrong, worse].concat())
        })
    }
}

/// A connection for each request.
fn ask_on_new_connections(proxy: SocketAddr, stop: &AtomicBool) -> (usize, Vec<String>) {
    let (mut answers, mut wrong) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        match client::try_request(proxy, "GET", "s.test", "/new", &[], b"") {
            Ok(response) if response.status() == 200 => answers += 1,
            Ok(response) => {
                wrong.push(format!("new connection: {} {}", response.head.first, response.text()))
            }
            Err(error) => wrong.push(format!("new connection: {error}")),
        }
        wait::until_moment(Instant::now() + PAUSE);
    }
    (answers, wrong)
}

/// One connection as long as it lasts, and then another one.
fn ask_on_kept_connections(proxy: SocketAddr, stop: &AtomicBool) -> (usize, Vec<String>) {
    let (mut answers, mut wrong) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        match ask_until_told_to_close(proxy, stop) {
            Ok(more) => answers += more,
            Err((more, error)) => {
                answers += more;
                wrong.push(error);
            }
        }
    }
    (answers, wrong)
}

/// Asks on one connection until an answer says that it is the last one; a connection that closes without saying so
/// has cost a request.
fn ask_until_told_to_close(proxy: SocketAddr, stop: &AtomicBool) -> Result<usize, (usize, String)> {
    let mut answers = 0;
    let mut connection =
        Connection::open(proxy).map_err(|error| (answers, format!("connecting: {error}")))?;
    while !stop.load(Ordering::Relaxed) {
        let sent = connection.send("GET /kept HTTP/1.1\r\nHost: s.test\r\n\r\n");
        match sent.and_then(|()| connection.response()) {
            Ok(response) if response.status() == 200 => {
                answers += 1;
                if response.head.header("connection") == Some("close") {
                    return Ok(answers);
                }
            }
            Ok(response) => return Err((answers, format!("kept connection: {}", response.head.first))),
            Err(error) => return Err((answers, format!("kept connection: {error}"))),
        }
        wait::until_moment(Instant::now() + PAUSE);
    }
    Ok(answers)
}

/// The processes that took over so far, as the ones before them logged.
fn successors(gateway: &Process) -> Vec<u64> {
    let logged = gateway.stderr();
    let lines = logged.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter_map(|line| line["fields"]["pid"].as_u64().or(line["pid"].as_u64())).collect()
}

/// Whether a process is over; one that nobody has asked for its exit code counts.
fn has_ended(pid: u64) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    status.map_or(true, |status| {
        status.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
    })
}

#[test]
fn d18_upgrades_of_the_executable_under_load_cost_no_request() {
    let (directory, upstream) = (tempfile::TempDir::new().unwrap(), Upstream::echo());
    let (_control_plane, mut gateway) = start(directory.path(), &upstream);
    let proxy = gateway.address("proxy");
    let new = Load::start(proxy, ask_on_new_connections);
    let kept = Load::start(proxy, ask_on_kept_connections);

    let mut serving = u64::from(gateway.id());
    for upgrade in 1..=UPGRADES {
        Process::signal(serving, "USR2");
        let successor =
            wait::until("a new process took over", || successors(&gateway).get(upgrade - 1).copied());
        wait::until_true("the old process ended", || has_ended(serving));
        serving = successor;
    }
    let ((answered_new, wrong_new), (answered_kept, wrong_kept)) = (new.end(), kept.end());
    let status = client::get(gateway.address("status"), "status", "/status/ready").status();
    Process::signal(serving, "TERM");
    wait::until_true("the last process ended", || has_ended(serving));

    let wrong = [wrong_new, wrong_kept].concat();
    assert!(wrong.is_empty(), "{} requests failed, such as {}", wrong.len(), wrong[0]);
    assert!(
        answered_new > UPGRADES && answered_kept > UPGRADES,
        "{answered_new} and {answered_kept} answers"
    );
    assert_eq!(status, 200, "the status answers at the same address");
    assert_eq!(gateway.exit_code(), Some(0));
}

#[test]
fn d18_an_upgrade_asked_for_as_soon_as_a_gateway_speaks_is_made_once_it_is_ready() {
    for first_word in ["proxy", "ready"] {
        let (directory, upstream) = (tempfile::TempDir::new().unwrap(), Upstream::echo());
        let (_control_plane, mut gateway) =
            begin(directory.path(), &upstream, |arguments| Process::start(arguments, &[]));
        gateway.wait_for_line(|line| line.starts_with(first_word));
        let first = u64::from(gateway.id());
        Process::signal(first, "USR2");
        let successor = wait::until("a new process took over", || successors(&gateway).first().copied());
        wait::until_true("the old process ended", || has_ended(first));
        assert_eq!(client::get(gateway.address("proxy"), "s.test", "/").status(), 200, "after {first_word}");
        Process::signal(successor, "TERM");
        wait::until_true("the new process ended", || has_ended(successor));
        assert_eq!(gateway.exit_code(), Some(0));
    }
}

/// A node that sends every datagram back.
fn echoing_datagrams() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((length, client)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&datagram[..length], client);
        }
    });
    address
}

/// A client for each datagram, which is sent once.
fn ask_by_datagrams(port: SocketAddr, stop: &AtomicBool) -> (usize, Vec<String>) {
    let (mut answers, mut wrong) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        match answered_datagram(port) {
            Ok(()) => answers += 1,
            Err(error) => wrong.push(format!("datagram: {error}")),
        }
        wait::until_moment(Instant::now() + PAUSE);
    }
    (answers, wrong)
}

fn answered_datagram(port: SocketAddr) -> std::io::Result<()> {
    let (client, mut answer) = (UdpSocket::bind("127.0.0.1:0")?, [0; 16]);
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    client.connect(port)?;
    client.send(b"datagram")?;
    client.recv(&mut answer).map(drop)
}

/// A gateway with a TCP port in front of `upstream` and a UDP port in front of a node that echoes, and both ports.
fn start_with_streams(
    directory: &Path,
    upstream: &Upstream,
    further: &[&str],
) -> ([Process; 2], [SocketAddr; 2]) {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ports = format!("{},{}", tcp.port(), udp.port());
    let arguments = [&["--stream-ports", &ports, "--shutdown-deadline", "1"], further].concat();
    let launch = |arguments: &[&str]| Process::start(arguments, &[]);
    let (control_plane, admin, mut gateway) = begin_with(directory, upstream, &arguments, launch);
    let datagrams = echoing_datagrams();
    let datagrams = json!([{"host": datagrams.ip(), "port": datagrams.port(), "weight": 1}]);
    for (id, scheme, nodes, port) in
        [("tcp", "tcp", upstream.nodes(), tcp.port()), ("udp", "udp", datagrams, udp.port())]
    {
        // Conversations are connections, of which there may be a thousand; each client begins one with every datagram.
        let timeout = json!({"connect": 5, "send": 5, "read": if scheme == "udp" { 0.5 } else { 60.0 }});
        let upstream = json!({"scheme": scheme, "nodes": nodes, "timeout": timeout});
        let service = json!({"name": id, "type": "stream", "upstream": upstream});
        admin.put_service(id, &service);
        let route = json!({"name": id, "service_id": id, "server_port": port});
        admin.change("PUT", &format!("/api/stream_routes/template/{id}"), &route);
        admin.publish(id, "1.0.0");
    }
    gateway.wait_ready();
    wait::until_true("the TCP port is served", || {
        client::try_request(tcp, "GET", "s.test", "/", &[], b"").is_ok_and(|answer| answer.status() == 200)
    });
    wait::until_true("the UDP port is served", || answered_datagram(udp).is_ok());
    ([control_plane, gateway], [tcp, udp])
}

/// A connection that was answered.
fn session(port: SocketAddr) -> Connection {
    let mut session = Connection::open(port).unwrap();
    assert_eq!(exchanged(&mut session), Some(200));
    session
}

fn exchanged(session: &mut Connection) -> Option<u16> {
    session.send("GET /session HTTP/1.1\r\nHost: s.test\r\n\r\n").ok()?;
    Some(session.response().ok()?.status())
}

#[test]
fn upgrades_refuse_nobody_at_stream_ports_and_sessions_go_on_where_they_began() {
    let (directory, upstream) = (tempfile::TempDir::new().unwrap(), Upstream::echo());
    let ([_control_plane, gateway], [tcp, udp]) = start_with_streams(directory.path(), &upstream, &[]);
    let load = [Load::start(tcp, ask_on_new_connections), Load::start(udp, ask_by_datagrams)];
    let first = u64::from(gateway.id());
    let (mut serving, mut sessions) = (first, Vec::new());
    for upgrade in 1..=UPGRADES {
        sessions.push(session(tcp));
        Process::signal(serving, "USR2");
        serving = wait::until("a new process took over", || successors(&gateway).get(upgrade - 1).copied());
    }
    // Requests would be over by now.
    wait::until_true("streams go on in the first process", || {
        gateway.stderr().contains("streams that began in this process go on in it")
    });
    assert!(!has_ended(first));
    assert!(sessions.iter_mut().all(|session| exchanged(session) == Some(200)));
    sessions.clear();
    wait::until_true("the first process ended with its last session", || has_ended(first));
    let [(answered, wrong), (answered_datagrams, wrong_datagrams)] = load.map(Load::end);
    Process::signal(serving, "TERM");
    wait::until_true("the last process ended", || has_ended(serving));

    let wrong = [wrong, wrong_datagrams].concat();
    assert!(wrong.is_empty(), "{} exchanges failed, such as {}", wrong.len(), wrong[0]);
    assert!(answered > UPGRADES && answered_datagrams > UPGRADES, "{answered} and {answered_datagrams}");
}

#[test]
fn a_session_is_ended_once_it_has_outlived_an_upgrade_for_long_enough() {
    let (directory, upstream) = (tempfile::TempDir::new().unwrap(), Upstream::echo());
    let further = ["--stream-drain", "2"];
    let ([_control_plane, gateway], [tcp, _]) = start_with_streams(directory.path(), &upstream, &further);
    let first = u64::from(gateway.id());
    let mut session = session(tcp);
    Process::signal(first, "USR2");
    let successor = wait::until("a new process took over", || successors(&gateway).first().copied());
    wait::until_true("the old process ended", || has_ended(first));
    assert_eq!(exchanged(&mut session), None);
    Process::signal(successor, "TERM");
    wait::until_true("the new process ended", || has_ended(successor));
}

#[test]
fn d18_a_stop_under_load_costs_no_request() {
    let (directory, upstream) = (tempfile::TempDir::new().unwrap(), Upstream::echo());
    let (_control_plane, mut gateway) = start(directory.path(), &upstream);
    let proxy = gateway.address("proxy");
    let clients: Vec<_> = (0..2 * CLIENTS)
        .map(|_| std::thread::spawn(move || ask_until_told_to_close(proxy, &AtomicBool::new(false))))
        .collect();
    wait::until_true("there is load", || upstream.recorded().len() > 10 * CLIENTS);
    gateway.terminate();
    for client in clients {
        assert!(client.join().unwrap().is_ok_and(|answers| answers > 0));
    }
    assert_eq!(gateway.exit_code(), Some(0));
}

#[test]
fn an_upgrade_to_an_executable_that_fails_changes_nothing() {
    let (directory, upstream) = (tempfile::TempDir::new().unwrap(), Upstream::echo());
    let (_control_plane, mut gateway) = start(directory.path(), &upstream);
    // The next process will not find the token any more and end at once.
    std::fs::remove_file(directory.path().join("data/instance-token")).unwrap();
    Process::signal(u64::from(gateway.id()), "USR2");
    wait::until_true("the failure is logged", || gateway.stderr().contains("the upgrade failed"));
    assert_eq!(client::get(gateway.address("proxy"), "s.test", "/").status(), 200);
    gateway.terminate();
    assert_eq!(gateway.exit_code(), Some(0));
}

#[test]
fn d16_a_gateway_that_runs_out_of_files_waits_and_recovers() {
    let (directory, upstream) = (tempfile::TempDir::new().unwrap(), Upstream::echo());
    let (_control_plane, mut gateway) =
        begin(directory.path(), &upstream, |arguments| Process::start_with_files(128, arguments));
    gateway.wait_ready();
    let proxy = gateway.address("proxy");
    let many: Vec<_> = (0..200).map(|_| Connection::open(proxy).expect("the system accepts")).collect();
    wait::until_true("files run out", || gateway.stderr().contains("cannot accept connections"));
    drop(many);
    wait::until_true("requests are answered again", || {
        client::try_request(proxy, "GET", "s.test", "/", &[], b"")
            .is_ok_and(|response| response.status() == 200)
    });
    let complaints = gateway.stderr().matches("cannot accept connections").count();
    assert!(complaints <= 8, "said {complaints} times");
    gateway.terminate();
    assert_eq!(gateway.exit_code(), Some(0));
}
