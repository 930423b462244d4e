//! What plugins keep on disk: a folder for each shelf, a file for each thing.
//!
//! A file appears as a whole or not at all: it is written beside and renamed. It is not synced: what a power failure
//! leaves of it is damaged, which whoever keeps it there has to be able to tell.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use gatewright_plugins::outbound::{Failure, Shelf, Waiting};
use tokio::runtime::Handle;

/// What the name of a file ends with until it is written.
const UNFINISHED: &str = ".new";

/// Bytes of the longest name.
const NAME_BYTES_MAX: usize = 100;

/// The folder of the shelf called `name`, which may be any text.
pub(super) fn folder(shelves: &Path, name: &str) -> PathBuf {
    let mut folder = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => folder.push(char::from(byte)),
            // A dot at the beginning would hide it, or name another folder.
            b'.' if !folder.is_empty() => folder.push('.'),
            other => folder += &format!("%{other:02x}"),
        }
    }
    shelves.join(folder)
}

/// One shelf.
pub(super) struct Folder {
    path: Arc<Path>,
    runtime: Handle,
}

impl Folder {
    pub(super) fn new(path: PathBuf, runtime: Handle) -> Self {
        Self { path: path.into(), runtime }
    }

    /// Does `work` on a thread that may wait for a disk.
    fn away<T: Send + 'static>(
        &self,
        otherwise: impl FnOnce(String) -> T + Send + 'static,
        work: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Waiting<T> {
        let path = Arc::clone(&self.path);
        let working = self.runtime.spawn_blocking(move || work(&path));
        Box::pin(async move { working.await.unwrap_or_else(|error| otherwise(error.to_string())) })
    }
}

/// The file called `name`; `None`: there can be none.
fn file(folder: &Path, name: &str) -> Option<PathBuf> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let is_name = !name.starts_with('.') && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_plain);
    (is_name && !name.is_empty()).then(|| folder.join(name))
}

impl Shelf for Folder {
    fn names(&self) -> Waiting<Vec<(String, u64)>> {
        self.away(
            |_| Vec::new(),
            |folder| {
                let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
                let named = files.filter_map(|file| {
                    let file = file.ok()?;
                    let name = file.file_name().into_string().ok()?;
                    if name.ends_with(UNFINISHED) {
                        // Nobody is going to finish it, or it is renamed before this happens.
                        let _ = std::fs::remove_file(file.path());
                        return None;
                    }
                    Some((name, file.metadata().ok().filter(std::fs::Metadata::is_file)?.len()))
                });
                named.collect()
            },
        )
    }

    fn read(&self, name: &str) -> Waiting<Option<Bytes>> {
        let name = name.to_owned();
        self.away(|_| None, move |folder| std::fs::read(file(folder, &name)?).ok().map(Bytes::from))
    }

    fn write(&self, name: &str, bytes: Bytes) -> Waiting<Result<(), Failure>> {
        let name = name.to_owned();
        self.away(
            |reason| Err(Failure::Unreachable(reason)),
            move |folder| {
                let place = |error: io::Error| Failure::Unreachable(format!("{}: {error}", folder.display()));
                let Some(path) = file(folder, &name) else {
                    return Err(Failure::Unsendable(format!("`{name}` is no name of a file")));
                };
                write(folder, &path, &bytes).map_err(place)
            },
        )
    }

    fn remove(&self, names: Vec<String>) -> Waiting<()> {
        self.away(
            |_| (),
            move |folder| {
                for path in names.iter().filter_map(|name| file(folder, name)) {
                    // It may be gone already, which is what is wanted.
                    let _ = std::fs::remove_file(path);
                }
            },
        )
    }
}

fn write(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(UNFINISHED);
    let written = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside);
    let written =
        written.and_then(|mut file| file.write_all(bytes)).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done<T>(runtime: &tokio::runtime::Runtime, waiting: Waiting<T>) -> T {
        runtime.block_on(waiting)
    }

    #[test]
    fn what_is_kept_is_there_again_until_it_is_removed() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let shelf = || Folder::new(folder(directory.path(), "cache.a/../b"), runtime.handle().clone());
        assert_eq!(done(&runtime, shelf().names()), []);
        done(&runtime, shelf().write("one", Bytes::from_static(b"1"))).unwrap();
        done(&runtime, shelf().write("two", Bytes::from_static(b"22"))).unwrap();
        let folder = directory.path().join("cache.a%2f..%2fb");
        std::fs::write(folder.join("three.new"), "cut").unwrap();
        std::fs::create_dir(folder.join("folder")).unwrap();
        let mut names = done(&runtime, shelf().names());
        names.sort();
        assert_eq!(names, [("one".to_owned(), 1), ("two".to_owned(), 2)]);
        assert!(!folder.join("three.new").exists());
        assert_eq!(done(&runtime, shelf().read("two")).as_deref(), Some(&b"22"[..]));
        done(&runtime, shelf().remove(vec!["two".to_owned(), "never".to_owned()]));
        assert_eq!(done(&runtime, shelf().read("two")), None);
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let shelf = Folder::new(folder(directory.path(), ".."), runtime.handle().clone());
        for name in ["../a", "/a", "..", ".a", "", "a/b", "a\0", &"a".repeat(101)] {
            assert!(done(&runtime, shelf.write(name, Bytes::new())).is_err(), "{name:?}");
            assert_eq!(done(&runtime, shelf.read(name)), None, "{name:?}");
        }
        assert!(folder(directory.path(), "..").starts_with(directory.path()));
        assert_ne!(folder(directory.path(), ".."), directory.path().join(".."));
    }
}
