//! A real Nacos server for tests: rnacos, on free ports of loopback, killed and forgotten when dropped.
//!
//! * `cargo xtask test-dependencies` compiles it; where it is missing, tests fail and say so, they are never skipped.
//! * It has one user; whether anybody else is answered is up to the test.
//! * Instances need not say that they live unless a test wants it, so that it does not matter how long a test takes.

#![allow(clippy::expect_used, clippy::panic, reason = "in a test, what is not as expected is a failure")]

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use ureq::Agent;
use ureq::http::Request;

/// The one user, who may everything.
pub const USERNAME: &str = "registrar";

/// What the user logs in with.
pub const PASSWORD: &str = "the registrar's & own";

/// The path of its interface in version 1.
const INTERFACE: &str = "/nacos/v1";

/// Within which something is answered, and it starts. Generous, because test machines are slow and busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// How often it is started until it does not break.
const STARTS_MAX: usize = 5;

/// Between two looks whether it has started.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A Nacos server.
pub struct Server {
    address: SocketAddr,
    /// Where it speaks gRPC, with itself if with nobody else.
    grpc_port: u16,
    settings: Vec<(&'static str, &'static str)>,
    directory: TempDir,
    /// What lets the test call it.
    token: String,
    agent: Agent,
    running: Option<Child>,
}

impl Server {
    /// Starts one that answers anybody.
    #[must_use]
    pub fn start() -> Self {
        // An hour.
        Self::start_with(vec![("RNACOS_NAMING_HEALTH_TIMEOUT_SECOND", "3600")])
    }

    /// Starts one that answers those who have logged in.
    #[must_use]
    pub fn start_with_logins() -> Self {
        Self::start_with(vec![
            ("RNACOS_NAMING_HEALTH_TIMEOUT_SECOND", "3600"),
            ("RNACOS_ENABLE_OPEN_API_AUTH", "true"),
        ])
    }

    /// Starts one that takes an ephemeral instance for ill which has not said for three seconds that it lives.
    #[must_use]
    pub fn start_with_heartbeats() -> Self {
        Self::start_with(vec![
            ("RNACOS_NAMING_HEALTH_TIMEOUT_SECOND", "3"),
            ("RNACOS_NAMING_INSTANCE_TIMEOUT_SECOND", "3600"),
        ])
    }

    fn start_with(settings: Vec<(&'static str, &'static str)>) -> Self {
        // Both are held until both are known.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [address, grpc] = free.each_ref().map(|free| free.local_addr().expect("its address"));
        drop(free);
        let directory = tempfile::Builder::new().prefix("gatewright-nacos-").tempdir();
        let config =
            Agent::config_builder().proxy(None).http_status_as_error(false).timeout_global(Some(DEADLINE));
        let mut server = Self {
            address,
            grpc_port: grpc.port(),
            settings,
            directory: directory.expect("a temporary directory"),
            token: String::new(),
            agent: config.build().into(),
            running: None,
        };
        server.start_anew();
        server
    }

    /// Where it answers.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a login of the user has given.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Registers an instance of `service`, or changes one, with further `parameters` of that call.
    pub fn register(&self, service: &str, instance: SocketAddr, parameters: &[(&str, &str)]) {
        self.say("POST", "/ns/instance", service, instance, parameters);
    }

    /// Takes an instance of `service` away.
    pub fn deregister(&self, service: &str, instance: SocketAddr, parameters: &[(&str, &str)]) {
        self.say("DELETE", "/ns/instance", service, instance, parameters);
    }

    /// Says that an instance of `service` lives.
    pub fn beat(&self, service: &str, instance: SocketAddr) {
        self.say("PUT", "/ns/instance/beat", service, instance, &[]);
    }

    fn say(&self, method: &str, path: &str, service: &str, instance: SocketAddr, more: &[(&str, &str)]) {
        let (ip, port) = (instance.ip().to_string(), instance.port().to_string());
        let named = [("serviceName", service), ("ip", ip.as_str()), ("port", port.as_str())];
        self.call(method, path, &[&named, more].concat());
    }

    /// Makes a call of its interface as the user, and hands back what it says.
    ///
    /// # Panics
    /// If it refuses.
    pub fn call(&self, method: &str, path: &str, parameters: &[(&str, &str)]) -> String {
        let token = [("accessToken", self.token.as_str())];
        let (status, said) = self.try_call(method, path, &[parameters, &token].concat()).expect("an answer");
        assert_eq!(status, 200, "{method} {path}: {said}");
        said
    }

    fn try_call(
        &self,
        method: &str,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<(u16, String), ureq::Error> {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let url = format!("{}{INTERFACE}{path}?{query}", self.url());
        let mut answer = self.agent.run(Request::builder().method(method).uri(url).body(())?)?;
        Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again where it was, as if it had never been there before.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_anew(&mut self) {
        let started = (0..STARTS_MAX).find_map(|_| self.try_start());
        self.token = started.unwrap_or_else(|| panic!("rnacos did not start"));
    }

    /// Starts it, and hands back the token of a login; none if it broke.
    fn try_start(&mut self) -> Option<String> {
        self.kill();
        // Whatever it kept is forgotten; at first there is nothing.
        let _ = std::fs::remove_dir_all(self.directory.path().join("data"));
        self.running = Some(self.spawn());
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            if let Some(token) = self.log_in() {
                return Some(token);
            }
            // It writes before all of it is put together, and a thread that is asked too early takes the rest with it.
            if self.said().contains("panicked at") {
                return None;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        None
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// What it said since it was started.
    fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn spawn(&self) -> Child {
        let log = File::create(self.log()).expect("a file in a directory of our own");
        let mut command = Command::new(program());
        // Neither settings of whoever runs the tests nor a file `.env` where they run are meant for it.
        command.env_clear().current_dir(self.directory.path());
        command.env("RNACOS_SDK_HOST", self.address.ip().to_string());
        command.env("RNACOS_HTTP_PORT", self.address.port().to_string());
        command.env("RNACOS_GRPC_PORT", self.grpc_port.to_string());
        command.env("RNACOS_HTTP_CONSOLE_PORT", "0").env("RNACOS_HTTP_WORKERS", "1");
        command.env("RNACOS_DATA_DIR", self.directory.path().join("data"));
        command.env("RNACOS_INIT_ADMIN_USERNAME", USERNAME).env("RNACOS_INIT_ADMIN_PASSWORD", PASSWORD);
        // Whether it has started is found out by logging in again and again.
        command.env("RNACOS_API_LOGIN_ONE_MINUTE_LIMIT", "1000000");
        // Instances are addresses that tests make up: nobody connects to them to see whether they live.
        command.env("RNACOS_NAMING_PERPETUAL_INSTANCE_PROBE_INTERVAL_SECOND", "0");
        command.env("RUST_LOG", "warn").envs(self.settings.iter().copied());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the same file")).stderr(log);
        command.spawn().expect("rnacos starts")
    }

    /// The token of a login; none while there is nobody who could log in.
    fn log_in(&self) -> Option<String> {
        let login = [("username", USERNAME), ("password", PASSWORD)];
        let (_, said) = self.try_call("POST", "/auth/login", &login).ok()?;
        let token = serde_json::from_str::<Value>(&said).ok()?["accessToken"].as_str()?.to_owned();
        // What everybody gets who does not have to log in, and cannot.
        (token != "AUTH_DISABLED").then_some(token)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("rnacos said: {}", self.said());
        }
    }
}

/// Where `cargo xtask test-dependencies` leaves it, in the checkout that is tested.
fn program() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let program = Path::new(&own).join("../../target/test-servers/rnacos");
    assert!(program.is_file(), "{} is not there; run `cargo xtask test-dependencies`", program.display());
    program.canonicalize().expect("a path")
}
