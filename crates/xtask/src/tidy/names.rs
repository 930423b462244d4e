//! Names that say nothing: a module called after a drawer collects whatever nobody gave a name.

use super::{File, files, refuse};

const BANNED: [&str; 11] = [
    "util", "utils", "helper", "helpers", "common", "misc", "types", "manager", "handler", "handlers",
    "managers",
];

/// The banned names among the folders and the file name of a path, and among the modules a text declares.
fn banned_modules(file: &File) -> Vec<String> {
    let from_path = file.path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part));
    let from_text = file.text.lines().filter_map(declared_module);
    let is_banned = |name: &&str| BANNED.contains(name);
    let mut found: Vec<&str> = from_path.chain(from_text).filter(is_banned).collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(|name| format!("{}: module `{name}`", file.path)).collect()
}

/// The name in `mod name;` or `pub(crate) mod name {`.
fn declared_module(line: &str) -> Option<&str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let place = words.iter().position(|word| *word == "mod")?;
    let declares = place == 0 || (place == 1 && words[0].starts_with("pub"));
    declares.then(|| words.get(place + 1).map(|name| name.trim_end_matches([';', '{'])))?
}

#[test]
fn no_module_is_a_drawer() {
    let found: Vec<String> = files("rs").iter().flat_map(banned_modules).collect();
    refuse(&found, "Name the module after what it is responsible for, or move its content to its only user.");
}

#[test]
fn drawers_are_found_in_paths_and_declarations() {
    let check = |path: &str, text: &str| {
        let found = banned_modules(&File { path: path.to_owned(), text: text.to_owned() });
        found.iter().map(|violation| violation.rsplit(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(check("crates/a/src/utils.rs", ""), ["`utils`"]);
    assert_eq!(check("crates/a/src/common/mod.rs", ""), ["`common`"]);
    assert_eq!(
        check("crates/a/src/lib.rs", "pub(crate) mod helpers;\nmod types {\n"),
        ["`helpers`", "`types`"]
    );
    assert_eq!(check("crates/a/src/router.rs", "// a mod types;\nmod matching;\n"), [""; 0]);
}
