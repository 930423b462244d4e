//! A private PostgreSQL for tests: started from the system's programs, reached through a socket in a temporary
//! directory, gone when the test process is.
//!
//! * It listens on no port, so tests never collide with each other or with a server that is there already.
//! * Text is ordered by a language's rules, as on most servers in the field, so that a query that forgets to ask for
//!   the order of bytes is found out.
//! * It never writes through to the disk: a killed server loses nothing by that, only a killed machine would.
//! * Where the programs are missing, tests fail and name the package; they are never skipped.

#![allow(clippy::expect_used, clippy::panic, reason = "in a test, what is not as expected is a failure")]

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Ends the server and removes its directory as soon as its input ends, which is when the test process does, however
/// that comes about. An interrupt from the terminal is meant for the tests, not for the cleaning up after them.
const KEEPER: &str =
    r#"trap '' INT TERM HUP; cat >/dev/null; "$1/pg_ctl" -D "$2/data" -m immediate -w stop; rm -rf "$2""#;

/// The superuser, who needs no password on the private socket.
const USER: &str = "postgres";

/// One more or less does not matter, but the socket's name holds it.
const PORT: &str = "5432";

/// A running PostgreSQL.
#[derive(Debug)]
pub struct Server {
    programs: PathBuf,
    directory: PathBuf,
    account: Option<Account>,
    databases: AtomicUsize,
    /// Its input stays open as long as the server is wanted.
    keeper: Child,
}

/// Whom the server runs as if the tests run as root, which PostgreSQL refuses.
#[derive(Clone, Copy, Debug)]
struct Account {
    uid: u32,
    gid: u32,
}

impl Server {
    /// Starts a server of its own, for a test that stops it.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start() -> Self {
        let programs = programs().unwrap_or_else(|| {
            panic!(
                "PostgreSQL's initdb is neither on PATH nor where Debian keeps it; install the package `postgresql` \
                 or run `cargo xtask test-dependencies` as root"
            )
        });
        let directory = tempfile::Builder::new().prefix("gatewright-postgres-").tempdir();
        let directory = directory.expect("a temporary directory").keep();
        let account = account();
        if let Some(Account { uid, gid }) = account {
            std::os::unix::fs::chown(&directory, Some(uid), Some(gid)).expect("the directory is handed over");
        }
        let keeper = keeper(&programs, &directory, account);
        let server = Self { programs, directory, account, databases: AtomicUsize::new(0), keeper };
        let data = server.data();
        server.run(
            "initdb",
            &[
                "--pgdata",
                &data,
                "--username",
                USER,
                "--auth=trust",
                "--encoding=UTF8",
                "--no-sync",
                "--no-instructions",
                "--locale=C",
                "--locale-provider=icu",
                "--icu-locale=en",
            ],
        );
        server.resume();
        server
    }

    /// The server that all tests of this process share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// The URL of a new and empty database.
    ///
    /// # Panics
    /// If it cannot be created.
    #[must_use]
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let socket = self.directory.to_str().expect("a path in UTF-8");
        self.run("createdb", &["--host", socket, "--port", PORT, "--username", USER, &name]);
        format!("postgres://{USER}@localhost:{PORT}/{name}?host={socket}")
    }

    /// The socket on which it is reached.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join(format!(".s.PGSQL.{PORT}"))
    }

    /// What PostgreSQL's own client says to `sql`, asked through whoever listens at `address`.
    ///
    /// # Panics
    /// If it says anything but an answer.
    #[must_use]
    pub fn ask_at(&self, address: std::net::SocketAddr, sql: &str) -> String {
        let mut command = prepared(&self.programs.join("psql"), &self.directory, self.account);
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        command.args(["--host", &host, "--port", &port, "--username", USER, "--dbname", USER]);
        command.args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", sql]);
        let output = command.output().expect("psql starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "psql {address}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Stops the server as a crash would.
    ///
    /// # Panics
    /// If it does not stop.
    pub fn crash(&self) {
        self.run("pg_ctl", &["--pgdata", &self.data(), "--mode=immediate", "--wait", "stop"]);
    }

    /// Starts the server again after [`Server::crash`]; it answers when this returns.
    ///
    /// # Panics
    /// If it does not start.
    pub fn resume(&self) {
        let log = self.directory.join("log");
        let log = log.to_str().expect("a path in UTF-8");
        let socket = self.directory.display();
        let options =
            format!("-p {PORT} -k {socket} -c listen_addresses= -c fsync=off -c max_connections=300");
        self.run(
            "pg_ctl",
            &["--pgdata", &self.data(), "--log", log, "--options", &options, "--wait", "start"],
        );
    }

    fn data(&self) -> String {
        self.directory.join("data").to_str().expect("a path in UTF-8").to_owned()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = prepared(&self.programs.join(program), &self.directory, self.account);
        let output = command.args(arguments).output().expect("a program of PostgreSQL starts");
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&said));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // What the keeper could not clean up does not change what the test found.
        let _ = self.keeper.wait();
    }
}

fn keeper(programs: &Path, directory: &Path, account: Option<Account>) -> Child {
    let mut command = prepared(Path::new("/bin/sh"), Path::new("/"), account);
    command.args(["-c", KEEPER, "keeper"]).arg(programs).arg(directory).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("a shell starts")
}

/// A program without the settings of whoever runs the tests, and without their privileges if they are root's.
fn prepared(program: &Path, directory: &Path, account: Option<Account>) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).current_dir(directory).stdin(Stdio::null());
    if let Some(Account { uid, gid }) = account {
        command.uid(uid).gid(gid);
    }
    command
}

/// The directory of PostgreSQL's programs; Debian keeps them apart, by version.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut debian: Vec<PathBuf> = match std::fs::read_dir("/usr/lib/postgresql") {
        Ok(versions) => versions.flatten().map(|version| version.path().join("bin")).collect(),
        Err(_) => Vec::new(),
    };
    debian.sort();
    let newest_first = debian.into_iter().rev();
    newest_first.chain(std::env::split_paths(&path)).find(|directory| directory.join("initdb").is_file())
}

fn account() -> Option<Account> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let accounts = std::fs::read_to_string("/etc/passwd").expect("the system's accounts");
    let named = |wanted: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(wanted))?;
        let mut numbers = line.split(':').skip(2).map(str::parse);
        Some(Account { uid: numbers.next()?.ok()?, gid: numbers.next()?.ok()? })
    };
    let found = named("postgres").or_else(|| named("nobody"));
    Some(found.expect("an account `postgres` or `nobody`, because PostgreSQL does not run as root"))
}
