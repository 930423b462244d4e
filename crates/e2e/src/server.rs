//! Servers of others that journeys need, on free ports: installed by `cargo xtask test-dependencies`, never skipped.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
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

    /// What the client `gateway` proves itself with.
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
