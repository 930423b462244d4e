//! Walls inside the control plane: SQL only in the store, HTTP only in the API.
//!
//! Crate edges are checked elsewhere; this keeps a crate from knowing everywhere what it may know in one place.

use super::{File, files, refuse};

/// A library and the only places whose code may name it.
struct Wall {
    /// The names it is imported by.
    crates: &'static [&'static str],
    /// Paths of files, or of folders if they end in `/`.
    places: &'static [&'static str],
    /// What may be called anywhere all the same.
    exception: Option<&'static str>,
}

const SQL: Wall = Wall {
    crates: &["sqlx"],
    places: &["crates/control-plane/src/store/"],
    // The migrations are compiled in by a macro, which the composition root may call.
    exception: Some("sqlx::migrate!"),
};
const HTTP: Wall = Wall {
    crates: &["axum", "utoipa_axum"],
    places: &[
        "crates/control-plane/src/api/",
        "crates/control-plane/src/distribution/",
        "crates/control-plane/src/distribution.rs",
        "crates/control-plane/src/listener.rs",
        "crates/control-plane/src/lib.rs",
        // Tests of the API play the servers that it asks.
        "crates/control-plane/tests/api/",
    ],
    exception: None,
};

/// Rules quote what they forbid.
const QUOTES: &str = "crates/xtask/src/tidy/";

impl Wall {
    fn violations(&self, file: &File) -> Vec<String> {
        let is_inside =
            |place: &&str| file.path == *place || (place.ends_with('/') && file.path.starts_with(place));
        if self.places.iter().any(is_inside) || file.path.starts_with(QUOTES) {
            return Vec::new();
        }
        let lines = file.text.lines().enumerate();
        let named = lines.filter(|(_, line)| self.crates.iter().any(|name| self.is_named(name, line)));
        named.map(|(index, line)| format!("{}:{}: {}", file.path, index + 1, line.trim())).collect()
    }

    /// Whether the code of `line` uses the crate: `name::…`, `use name;` or `extern crate name;`.
    fn is_named(&self, name: &str, line: &str) -> bool {
        let code = line.split("//").next().unwrap_or_default();
        let code = self.exception.map_or_else(|| code.to_owned(), |allowed| code.replace(allowed, ""));
        code.match_indices(name).any(|(start, _)| {
            let before = code[..start].chars().next_back();
            let after = &code[start + name.len()..];
            let begins =
                !before.is_some_and(|it| it.is_alphanumeric() || matches!(it, '_' | '-' | '"' | '/'));
            begins && (after.starts_with("::") || (after.starts_with(';') && code.contains("use ")))
        })
    }
}

fn check(wall: &Wall, remedy: &str) {
    let found: Vec<String> = files("rs").iter().flat_map(|file| wall.violations(file)).collect();
    refuse(&found, remedy);
}

#[test]
fn sql_stays_in_the_store() {
    check(
        &SQL,
        "Move the query into control-plane/src/store and let it answer in types of gatewright-model.",
    );
}

#[test]
fn http_stays_in_the_api() {
    check(
        &HTTP,
        "Move it into control-plane/src/api; behind the API nobody knows requests and status codes.",
    );
}

#[test]
fn a_crate_is_named_by_code_and_not_by_prose() {
    let count = |wall: &Wall, path: &str, text: &str| {
        wall.violations(&File { path: path.to_owned(), text: text.to_owned() }).len()
    };
    let rule = "crates/control-plane/src/app/service.rs";
    assert_eq!(count(&SQL, rule, "use sqlx::Row;\nuse sqlx;\nlet x = sqlx::query(q);\n"), 3);
    assert_eq!(
        count(&SQL, rule, "//! Never calls sqlx::query.\nlet s = \"sqlx\"; // sqlx::x\nmysqlx::f();\n"),
        0
    );
    assert_eq!(count(&SQL, "crates/control-plane/src/store/service.rs", "use sqlx::Row;\n"), 0);
    assert_eq!(count(&SQL, "crates/control-plane/src/store.rs", "use sqlx::Row;\n"), 1);
    assert_eq!(count(&SQL, "crates/control-plane/src/lib.rs", "sqlx::migrate!(\"migrations\")\n"), 0);
    assert_eq!(count(&HTTP, rule, "use axum::Json;\nutoipa_axum::routes!(f)\n"), 2);
    assert_eq!(count(&HTTP, "crates/control-plane/src/lib.rs", "use axum::Router;\n"), 0);
}
