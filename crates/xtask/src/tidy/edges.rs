//! Which crate may know which: the table of ARCHITECTURE.md as a test.
//!
//! The absent arrow between `gateway` and `control-plane` is the architecture, so dev-dependencies count as well.
//! The walls to the outside hold for everything a crate pulls in, not only for what its manifest names.

use std::collections::BTreeSet;

use serde_json::Value;

use super::refuse;

/// The crates of this repository each crate may depend on. `e2e`, `simulation` and `xtask` stand outside and may see everything.
const ALLOWED: &[(&str, &[&str])] = &[
    ("gatewright-model", &[]),
    ("gatewright-plugins", &["gatewright-model"]),
    ("gatewright-discovery", &["gatewright-model", "gatewright-test-nacos"]),
    (
        "gatewright-gateway",
        &["gatewright-model", "gatewright-plugins", "gatewright-discovery", "gatewright-test-tls"],
    ),
    ("gatewright-test-nacos", &[]),
    ("gatewright-test-postgres", &[]),
    ("gatewright-test-tls", &[]),
    (
        "gatewright-control-plane",
        &["gatewright-model", "gatewright-plugins", "gatewright-discovery", "gatewright-test-postgres"],
    ),
    (
        "gatewright",
        &[
            "gatewright-model",
            "gatewright-plugins",
            "gatewright-discovery",
            "gatewright-gateway",
            "gatewright-control-plane",
        ],
    ),
];
const FREE: &[&str] = &["gatewright-e2e", "gatewright-simulation", "xtask"];

/// What must not be built into a crate, neither directly nor through others: arguments of `cargo tree`, names.
const WALLS: &[(&[&str], &[&str])] = &[
    (&["--package", "gatewright-model"], &["tokio", "hyper", "axum", "sqlx"]),
    (&["--package", "gatewright-plugins"], &["axum", "sqlx"]),
    (&["--package", "gatewright-discovery"], &["axum", "sqlx"]),
    (&["--package", "gatewright-gateway"], &["axum", "sqlx"]),
    (
        &["--package", "gatewright", "--no-default-features", "--features", "gateway"],
        &["axum", "sqlx", "libsqlite3-sys", "gatewright-control-plane"],
    ),
];

/// The dependencies between crates of the workspace, from the output of `cargo metadata --no-deps`.
fn edges(metadata: &Value) -> Vec<(String, String)> {
    let names = |list: &Value| -> Vec<String> {
        let list = list.as_array().into_iter().flatten();
        list.filter_map(|entry| entry["name"].as_str().map(str::to_owned)).collect()
    };
    let ours: BTreeSet<String> = names(&metadata["packages"]).into_iter().collect();
    let mut edges = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let from = package["name"].as_str().unwrap_or_default();
        for to in names(&package["dependencies"]) {
            if ours.contains(&to) {
                edges.push((from.to_owned(), to));
            }
        }
    }
    edges
}

fn forbidden_edges(edges: &[(String, String)]) -> Vec<String> {
    let mut violations = Vec::new();
    for (from, to) in edges {
        let allowed = ALLOWED.iter().find(|(name, _)| name == from).map(|(_, allowed)| *allowed);
        match allowed {
            _ if FREE.contains(&from.as_str()) => {}
            Some(allowed) if allowed.contains(&to.as_str()) => {}
            Some(_) => violations.push(format!("{from} → {to}")),
            None => violations.push(format!("{from} → {to}: {from} is not in the table")),
        }
    }
    violations
}

/// The packages in `tree` (one per line, name first) that are one of `banned` or a part of it, like `axum-core`.
fn banned_packages(tree: &str, banned: &[&str]) -> BTreeSet<String> {
    let is_banned = |package: &&str| {
        banned.iter().any(|name| {
            package.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
    };
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(is_banned).map(str::to_owned).collect()
}

fn cargo(arguments: &[&str]) -> String {
    let mut command = crate::cargo::cargo();
    // What a test run needs has been downloaded and locked by building it.
    command.args(arguments).args(["--offline", "--locked"]).current_dir(crate::repository());
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn crates_depend_only_on_what_the_architecture_allows() {
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps"]);
    let edges = edges(&serde_json::from_str(&metadata).expect("JSON"));
    assert!(edges.contains(&("gatewright".to_owned(), "gatewright-model".to_owned())), "{edges:?}");
    refuse(
        &forbidden_edges(&edges),
        "Remove the dependency; what two crates share belongs into gatewright-model. A new edge needs a decision \
         record in docs/adr, the table in ARCHITECTURE.md and the one in tidy/edges.rs.",
    );
}

#[test]
fn nothing_behind_a_wall_is_built_in() {
    for (selection, banned) in WALLS {
        let arguments = [&["tree", "--edges", "normal", "--prefix", "none"], *selection].concat();
        let tree = cargo(&arguments);
        assert!(tree.starts_with(selection[1]), "no tree of {}: {tree}", selection[1]);
        let found: Vec<String> = banned_packages(&tree, banned).into_iter().collect();
        refuse(
            &found,
            &format!(
                "`cargo {} --invert <name>` shows who brings it in; turn that feature off or move the code to the \
                 crate that may know it (ARCHITECTURE.md, \"The walls\").",
                arguments.join(" ")
            ),
        );
    }
}

#[test]
fn an_edge_that_the_table_lacks_is_named() {
    let metadata = serde_json::json!({"packages": [
        {"name": "gatewright-model", "dependencies": [{"name": "serde"}]},
        {"name": "gatewright-plugins", "dependencies": [{"name": "gatewright-model"}]},
        {"name": "gatewright-gateway", "dependencies": [{"name": "gatewright-control-plane", "kind": "dev"}]},
        {"name": "gatewright-control-plane", "dependencies": []},
        {"name": "newcomer", "dependencies": [{"name": "gatewright-model"}]},
        {"name": "xtask", "dependencies": [{"name": "gatewright-control-plane"}]},
    ]});
    assert_eq!(
        forbidden_edges(&edges(&metadata)),
        [
            "gatewright-gateway → gatewright-control-plane",
            "newcomer → gatewright-model: newcomer is not in the table"
        ]
    );
}

#[test]
fn parts_of_a_banned_package_are_banned_and_namesakes_are_not() {
    let tree = "gatewright-model v0.1.0 (/x)\naxum-core v0.5.0\nsqlx v0.9.0 (*)\ntokio-util v0.7.0\nhyperloglog v1.0.0\n";
    let found: Vec<String> = banned_packages(tree, &["axum", "sqlx", "hyper"]).into_iter().collect();
    assert_eq!(found, ["axum-core", "sqlx"]);
}
