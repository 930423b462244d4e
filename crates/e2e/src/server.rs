//! Servers of others that journeys need, on free ports: installed by `cargo xtask test-dependencies`, never skipped.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::{client, wait};

/// What the first token of a server of secrets is.
const ROOT_TOKEN: &str = "root";

/// A running server; killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where `cargo xtask test-dependencies` installs servers.
fn installed(inside: &str) -> PathBuf {
    let servers = crate::package().join("../../target/test-servers");
    let place = servers.join(inside);
    assert!(place.exists(), "{} is not there; run `cargo xtask test-dependencies`", place.display());
    place.canonicalize().expect("a path")
}

fn spawn(command: &mut Command) -> (Running, BufReader<ChildStdout>) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the server starts");
    let stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
    (Running(child), stdout)
}

/// An OpenBao, which keeps secrets in memory.
pub struct SecretServer {
    address: SocketAddr,
    _running: Running,
}

impl SecretServer {
    /// Starts one, with key/value secrets of version 2 below `secret` and of version 1 below `old`.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let mut command = Command::new(installed("bao"));
        command.args(["server", "-dev", "-dev-no-store-token"]);
        command.arg(format!("-dev-root-token-id={ROOT_TOKEN}"));
        command.arg(format!("-dev-listen-address={address}"));
        let (running, stdout) = spawn(&mut command);
        // What nobody reads would stop it one day.
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(drop));
        let server = Self { address, _running: running };
        wait::until_true("the server of secrets is ready", || {
            let asked = client::try_request(address, "GET", "bao.test", "/v1/sys/health", &[], b"");
            asked.is_ok_and(|answer| answer.status() == 200)
        });
        server.write("sys/mounts/old", &serde_json::json!({"type": "kv", "options": {"version": "1"}}));
        server
    }

    /// Where it answers.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What lets everything be read.
    #[must_use]
    pub fn token(&self) -> &'static str {
        ROOT_TOKEN
    }

    /// Writes `value` at `path` of its interface.
    ///
    /// # Panics
    /// If it is refused.
    pub fn write(&self, path: &str, value: &Value) {
        let headers = [("X-Vault-Token", ROOT_TOKEN), ("Content-Type", "application/json")];
        let body = value.to_string();
        let answer = client::request(
            self.address,
            "POST",
            "bao.test",
            &format!("/v1/{path}"),
            &headers,
            body.as_bytes(),
        );
        assert!(matches!(answer.status(), 200 | 204), "{path}: {}", answer.text());
    }
}

/// A Redis, which keeps nothing on disk.
pub struct RedisServer {
    port: u16,
    /// What its client on the command line is told to reach it.
    client: Vec<String>,
    _running: Running,
}

impl RedisServer {
    /// Starts one.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(|port| vec!["--port".to_owned(), port.to_string()], Vec::new())
    }

    /// Starts one that is asked over TLS, shows the certificate in `directory`, and wants `password`.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_over_tls(directory: &Path, password: &str) -> Self {
        let place = |name: &str| directory.join(name).display().to_string();
        let text = str::to_owned;
        let (certificate, key) = (place("redis.pem"), place("redis.key"));
        let arguments = |port: u16| {
            let mut arguments = ["--port", "0", "--tls-auth-clients", "no"].map(text).to_vec();
            arguments.extend([text("--tls-port"), port.to_string(), text("--requirepass"), text(password)]);
            arguments.extend([text("--tls-cert-file"), certificate.clone(), text("--tls-key-file"), key]);
            arguments.extend([text("--tls-ca-cert-file"), certificate]);
            arguments
        };
        let client = ["--tls", "--insecure", "--no-auth-warning", "-a", password].map(text).to_vec();
        Self::start_with(arguments, client)
    }

    fn start_with(arguments: impl FnOnce(u16) -> Vec<String>, mut client: Vec<String>) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("its address").port();
        drop(free);
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).args(arguments(port));
        let running = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let running =
            running.expect("redis-server starts; without it, run `cargo xtask test-dependencies` as root");
        client.extend(["-h".to_owned(), "127.0.0.1".to_owned(), "-p".to_owned(), port.to_string()]);
        let redis = Self { port, client, _running: Running(running) };
        wait::until_true("Redis answers", || redis.says(&["ping"]) == "PONG");
        redis
    }

    /// Where it answers, on this host.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it says to a command.
    ///
    /// # Panics
    /// If there is no client.
    #[must_use]
    pub fn says(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli").args(&self.client).args(command).output();
        String::from_utf8_lossy(&output.expect("redis-cli starts").stdout).trim().to_owned()
    }
}

/// A gRPC server, which can be asked what `testdata/orders.proto` says.
pub struct GrpcServer {
    address: SocketAddr,
    _running: Running,
}

impl GrpcServer {
    /// Starts one.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start() -> Self {
        let script = crate::package().join("testdata/grpc-server.py");
        let mut command = Command::new("python3");
        command.arg(script).env("PYTHONPATH", installed("python")).env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the server starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        stdout.read_line(&mut line).expect("a line");
        let address = line.trim().parse().expect("the gRPC server says where it is");
        Self { address, _running: Running(child) }
    }

    /// The proto of its service.
    #[must_use]
    pub fn proto() -> &'static str {
        include_str!("../testdata/orders.proto")
    }

    /// It as the only node of an upstream.
    #[must_use]
    pub fn nodes(&self) -> Value {
        serde_json::json!([{ "host": self.address.ip(), "port": self.address.port(), "weight": 1 }])
    }
}

/// An OpenID Connect provider that logs everybody in as `jack`.
pub struct IdentityProvider {
    /// Where it answers.
    pub issuer: String,
    _running: Running,
}

impl IdentityProvider {
    /// Starts one whose client `gateway` has browsers sent back to `redirect_uri`, and to `after_logout` in the end.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(redirect_uri: &str, after_logout: &str) -> Self {
        let script = crate::package().join("testdata/identity-provider.mjs");
        let mut command = Command::new("node");
        command.arg(script).arg(installed("node")).args([redirect_uri, after_logout]);
        let (running, mut stdout) = spawn(&mut command);
        let issuer = loop {
            let mut line = String::new();
            let read = stdout.read_line(&mut line).expect("a line");
            assert!(read > 0, "the identity provider ended before it said where it is");
            if line.starts_with("http://") {
                break line.trim().to_owned();
            }
        };
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(drop));
        Self { issuer, _running: running }
    }

    /// What the clients `gateway` and `bound` prove themselves with; tokens of the latter are bound to a key.
    #[must_use]
    pub fn client_secret(&self) -> &'static str {
        "the secret of the gateway"
    }

    /// Its address without the scheme.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.issuer.trim_start_matches("http://").parse().expect("an address")
    }
}
