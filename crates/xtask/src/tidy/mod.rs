//! Tests of the repository itself: what reviewers would otherwise have to repeat.
//!
//! Each rule is a small pure function over names and texts with a unit test of its own, and one test that runs it
//! over the repository; its message says what to do. A good addition is a rule that was broken twice.

mod documents;
mod edges;
mod names;
mod sources;
mod walls;

use std::path::{Path, PathBuf};

/// Folders that hold no work of ours, wherever they stand.
const SKIPPED: [&str; 4] = ["target", "node_modules", "gatewright-data", "fuzz-corpus"];

/// A file of the repository.
struct File {
    /// Relative to the root of the repository, with `/`.
    path: String,
    text: String,
}

/// Every file whose name ends in `extension`, in the order of paths. Hidden folders (`.git`, virtual environments)
/// are not ours.
fn files(extension: &str) -> Vec<File> {
    let root = crate::repository();
    let mut paths = Vec::new();
    collect(&root, extension, &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "no *.{extension} below {}", root.display());
    let read = |path: PathBuf| {
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let path = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
        File { path, text }
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder that can be read").flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') || SKIPPED.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            collect(&path, extension, found);
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
}

/// Fails with every violation and what to do about them.
#[track_caller]
fn refuse(violations: &[String], remedy: &str) {
    assert!(violations.is_empty(), "\n  {}\n{remedy}\n", violations.join("\n  "));
}

#[test]
fn files_are_found_below_the_root() {
    let paths: Vec<String> = files("rs").into_iter().map(|file| file.path).collect();
    assert!(paths.contains(&"crates/xtask/src/tidy/mod.rs".to_owned()), "{paths:?}");
}
