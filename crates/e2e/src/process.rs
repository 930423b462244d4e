//! One run of the executable: its printed lines, its logs, its end.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::{executable, wait};

/// A running (or ended) process; killed when dropped, and a journey fails if anything in it panicked.
pub struct Process {
    child: Child,
    arguments: String,
    incoming: Receiver<String>,
    lines: Vec<String>,
    stderr: Arc<Mutex<String>>,
    stderr_reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts the executable with `arguments` and nothing of Gatewright's in its environment but `environment`.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn(Command::new(executable::path()), arguments, environment)
    }

    /// Starts the executable where it may open no more than `files_max` files.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start_with_files(files_max: u32, arguments: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit -n {files_max} && exec \"$0\" \"$@\"")).arg(executable::path());
        Self::spawn(shell, arguments, &[])
    }

    fn spawn(mut command: Command, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GATEWRIGHT_") {
                command.env_remove(name);
            }
        }
        command.args(arguments).envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the executable starts");

        let (sender, incoming) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let stderr_reader = collect(child.stderr.take().expect("stderr is a pipe"), stderr.clone());
        let arguments = arguments.join(" ");
        Self { child, arguments, incoming, lines: Vec::new(), stderr, stderr_reader: Some(stderr_reader) }
    }

    /// Runs the executable to its end; hands back the exit code, stdout and stderr.
    #[must_use]
    pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
        let mut process = Self::start(arguments, environment);
        let code = process.exit_code();
        (code, process.stdout(), process.stderr())
    }

    /// Waits for a printed line; earlier ones count.
    ///
    /// # Panics
    /// If the process ends, or the deadline passes, before such a line is printed.
    pub fn wait_for_line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        if let Some(line) = self.lines.iter().find(|line| wanted(line)) {
            return line.clone();
        }
        loop {
            match self.incoming.recv_timeout(wait::DEADLINE) {
                Ok(line) => {
                    self.lines.push(line.clone());
                    if wanted(&line) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("the line was not printed: {}", self.report()),
                Err(RecvTimeoutError::Disconnected) => panic!("the process ended: {}", self.report()),
            }
        }
    }

    /// Waits until everything works that was announced.
    pub fn wait_ready(&mut self) {
        self.wait_for_line(|line| line == "ready");
    }

    /// Where something listens, such as `proxy`, as printed.
    pub fn address(&mut self, label: &str) -> SocketAddr {
        let line = self.wait_for_line(|line| columns(line).first() == Some(&label));
        let url = columns(&line)[1];
        let authority =
            url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default();
        authority.parse().unwrap_or_else(|_| panic!("no address in {line:?}"))
    }

    /// A secret, such as `administrator key`, if it was printed before `ready`.
    #[must_use]
    pub fn secret(&self, label: &str) -> Option<String> {
        let rows = self.lines.iter().map(|line| columns(line));
        let row = rows.into_iter().find(|row| row.first() == Some(&label))?;
        row.get(1).map(|&secret| secret.to_owned())
    }

    /// The printed lines so far.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Everything printed so far.
    #[must_use]
    pub fn stdout(&mut self) -> String {
        self.lines.extend(self.incoming.try_iter());
        self.lines.join("\n")
    }

    /// Everything logged so far.
    ///
    /// # Panics
    /// If reading it failed.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("the reader of stderr lives").clone()
    }

    /// The number of the process that was started; one that took over from it has another.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM.
    ///
    /// # Panics
    /// If there is no such process any more.
    pub fn terminate(&self) {
        Self::signal(u64::from(self.child.id()), "TERM");
    }

    /// Sends SIGHUP.
    ///
    /// # Panics
    /// If there is no such process any more.
    pub fn hang_up(&self) {
        Self::signal(u64::from(self.child.id()), "HUP");
    }

    /// Sends a signal to any process.
    ///
    /// # Panics
    /// If there is no such process any more.
    pub fn signal(pid: u64, name: &str) {
        let kill = format!("kill -{name} {pid}");
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success(), "{kill}");
    }

    /// Ends the process like a power cut (SIGKILL).
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the end; none: a signal ended it.
    pub fn exit_code(&mut self) -> Option<i32> {
        let status = wait::until(&format!("the end of `gatewright {}`", self.arguments), || {
            self.child.try_wait().expect("the child's status")
        });
        if let Some(reader) = self.stderr_reader.take() {
            let _ = reader.join();
        }
        self.lines.extend(self.incoming.iter());
        status.code()
    }

    fn report(&self) -> String {
        format!("gatewright {}\n{}\nstderr:\n{}", self.arguments, self.lines.join("\n"), self.stderr())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.report());
        } else {
            assert!(!self.stderr().contains("panicked at"), "something panicked: {}", self.report());
        }
    }
}

/// A printed line has columns with at least two spaces between them.
fn columns(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|column| !column.is_empty()).collect()
}

fn collect(mut stderr: impl Read + Send + 'static, text: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stderr.read(&mut buffer) {
            let Ok(mut text) = text.lock() else { return };
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    })
}
