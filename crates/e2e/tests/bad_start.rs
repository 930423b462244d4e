//! Starts that cannot work: one clear line on stderr, and the exit code that says whose mistake it was.

use std::net::TcpListener;

use gatewright_e2e::{Process, World, world};

/// The lines on stderr that are no structured logs.
fn plain(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| !line.starts_with('{')).collect()
}

fn refused(arguments: &[&str], parts: &[&str]) {
    let (code, stdout, stderr) = Process::run(arguments, &[]);
    assert_eq!(code, Some(1), "{arguments:?}\n{stdout}\n{stderr}");
    let lines = plain(&stderr);
    assert_eq!(lines.len(), 1, "{arguments:?}\n{stderr}");
    assert!(parts.iter().all(|part| lines[0].contains(part)), "{arguments:?}: {}", lines[0]);
    assert!(!lines[0].contains("Os {") && !lines[0].contains("panicked"), "{}", lines[0]);
    assert!(!stdout.contains("ready"), "{stdout}");
}

#[test]
fn an_occupied_port_is_named_with_its_flag() {
    let occupied = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _listener = TcpListener::bind(occupied).unwrap();
    let address = occupied.to_string();
    for flag in ["--admin", "--proxy", "--status"] {
        let directory = tempfile::TempDir::new().unwrap();
        let data_dir = directory.path().join("data");
        let mut arguments = world::up(data_dir.to_str().unwrap());
        let place = arguments.iter().position(|argument| *argument == flag).unwrap();
        arguments[place + 1] = &address;
        refused(&arguments, &[&address, flag]);
    }
}

#[test]
fn a_port_that_another_gateway_serves_is_occupied_too() {
    let (world, directory) = (World::start(), tempfile::TempDir::new().unwrap());
    let (data_dir, address) = (directory.path().join("data"), world.proxy.to_string());
    let mut arguments = world::up(data_dir.to_str().unwrap());
    let place = arguments.iter().position(|argument| *argument == "--proxy").unwrap();
    arguments[place + 1] = &address;
    refused(&arguments, &[&address, "--proxy"]);
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let below = file.join("data");
    for data_dir in [&file, &below] {
        let data_dir = data_dir.to_str().unwrap();
        refused(&world::up(data_dir), &[data_dir]);
    }
}

#[test]
fn two_processes_cannot_share_a_data_directory() {
    let world = World::start();
    let data_dir = world.data_dir();
    refused(&world::up(data_dir.to_str().unwrap()), &[data_dir.to_str().unwrap()]);
    assert_eq!(world.admin.published(), Vec::<serde_json::Value>::new(), "the first process is unharmed");
}

#[test]
fn a_token_file_that_is_missing_is_named() {
    let arguments = [
        "gateway",
        "--control-plane",
        "http://127.0.0.1:1",
        "--token-file",
        "/no/such/token",
        "--proxy",
        "127.0.0.1:0",
    ];
    refused(&arguments, &["/no/such/token", "--token-file"]);
}

#[test]
fn wrong_usage_is_exit_code_2_and_help_is_0() {
    for (arguments, expected) in [
        (vec![], 2),
        (vec!["serve"], 2),
        (vec!["up", "--no-such-flag"], 2),
        (vec!["up", "--workers", "none"], 2),
        (vec!["up", "--proxy", "9080"], 2),
        (vec!["gateway", "--control-plane", "http://127.0.0.1:1"], 2),
        (vec!["gateway", "--control-plane", "https://127.0.0.1", "--token", "t"], 2),
        (vec!["quick"], 2),
        (vec!["--help"], 0),
        (vec!["up", "--help"], 0),
        (vec!["--version"], 0),
        (vec!["completions", "bash"], 0),
    ] {
        let (code, stdout, stderr) = Process::run(&arguments, &[]);
        assert_eq!(code, Some(expected), "{arguments:?}\n{stderr}");
        assert_eq!(stdout.is_empty(), expected == 2, "{arguments:?}");
    }
    let (_, version, _) = Process::run(&["--version"], &[]);
    assert!(version.starts_with("gatewright "), "{version}");
    let (_, script, _) = Process::run(&["completions", "bash"], &[]);
    assert!(script.contains("control-plane") && script.contains("--data-dir"));
}
