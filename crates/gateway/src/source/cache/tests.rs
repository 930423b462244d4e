//! What is kept comes back, and what is damaged, foreign or half written never does.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use gatewright_model::digest::ContentDigest;
use gatewright_model::protocol::Message;
use gatewright_model::snapshot::{Revision, Snapshot};
use serde_json::json;
use tempfile::TempDir;

use super::*;

fn line(revision: u64, full: bool, version: &str) -> Bytes {
    let service = json!({
        "service_id": "s", "service_version_id": "v", "version": version, "name": "s", "type": "http",
        "routes": [], "strip_path_prefix": true, "upstream": {}, "status": 1
    });
    let line = json!({"update": {"revision": revision, "full": full, "services": [service]}});
    Bytes::from(line.to_string())
}

fn after(before: &Snapshot, line: &[u8]) -> Snapshot {
    match serde_json::from_slice(line).unwrap() {
        Message::Update(update) => before.apply(update),
        other => panic!("{other:?}"),
    }
}

fn cache(directory: &TempDir) -> Cache {
    Cache::open(directory.path(), &"default".parse().unwrap()).unwrap()
}

fn revision(directory: &TempDir) -> Option<u64> {
    cache(directory).load().ok().map(|kept| kept.snapshot.revision.0)
}

fn file(directory: &TempDir, name: &str) -> PathBuf {
    directory.path().join(FOLDER).join(name)
}

/// Two generations: revision 1 before, revisions 2 and 3 now.
fn two_generations() -> TempDir {
    let directory = TempDir::new().unwrap();
    let cache = cache(&directory);
    cache.write_whole(&line(1, true, "1")).unwrap();
    let mut journal = cache.write_whole(&line(2, true, "2")).unwrap();
    cache.append(&mut journal, &[line(3, false, "3")]).unwrap();
    directory
}

fn writer(directory: &TempDir) -> (Writer, Receiver<super::writer::Outcome>) {
    let (sender, outcomes) = channel();
    let writer = Writer::start(cache(directory), move |outcome| sender.send(outcome).unwrap()).unwrap();
    (writer, outcomes)
}

#[test]
fn e2_what_was_kept_is_there_after_a_restart() {
    let directory = TempDir::new().unwrap();
    assert!(cache(&directory).load().unwrap_err().is_empty(), "nothing yet is nothing wrong");
    let (writer, outcomes) = writer(&directory);
    let first = Arc::new(after(&Snapshot::default(), &line(1, true, "1")));
    writer.keep(Arc::clone(&first), ContentDigest::default(), None);
    assert_eq!(outcomes.recv().unwrap(), Ok(Revision(1)));
    let second = Arc::new(after(&first, &line(2, false, "2")));
    writer.keep(Arc::clone(&second), ContentDigest::default(), Some(line(2, false, "2")));
    assert_eq!(outcomes.recv().unwrap(), Ok(Revision(2)));
    drop(writer);
    assert!(outcomes.recv().is_err(), "the thread ends");
    let kept = cache(&directory).load().unwrap();
    assert_eq!((&kept.snapshot, kept.complaints.as_slice()), (&*second, [].as_slice()));
}

#[test]
fn e4_a_file_cut_anywhere_gives_an_older_configuration_and_says_so() {
    let directory = two_generations();
    let path = file(&directory, CURRENT);
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let kept = cache(&directory).load().unwrap();
        assert!(kept.snapshot.revision.0 < 3, "cut at {length}");
        let is_journal_end = kept.snapshot.revision.0 == 2 && kept.complaints.is_empty();
        assert!(is_journal_end || !kept.complaints.is_empty(), "cut at {length} unnoticed");
    }
}

#[test]
fn e4_a_flipped_bit_anywhere_gives_an_older_configuration_and_says_so() {
    let directory = two_generations();
    let path = file(&directory, CURRENT);
    let whole = std::fs::read(&path).unwrap();
    for index in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[index] ^= 1 << (index % 8);
        std::fs::write(&path, &damaged).unwrap();
        let kept = cache(&directory).load().unwrap();
        assert!(kept.snapshot.revision.0 < 3 && !kept.complaints.is_empty(), "byte {index}");
    }
}

#[test]
fn e5_a_file_of_a_newer_release_is_refused_and_the_previous_one_used() {
    let directory = two_generations();
    let path = file(&directory, CURRENT);
    let mut newer = std::fs::read(&path).unwrap();
    newer[7] = 200;
    std::fs::write(&path, &newer).unwrap();
    let kept = cache(&directory).load().unwrap();
    assert_eq!(kept.snapshot.revision, Revision(1));
    assert!(kept.complaints[0].contains("newer release (format 200"), "{:?}", kept.complaints);
}

#[test]
fn e5_a_record_that_is_not_understood_ends_what_is_used() {
    let directory = TempDir::new().unwrap();
    let cache = cache(&directory);
    let mut journal = cache.write_whole(&line(1, true, "1")).unwrap();
    let strange = Bytes::from_static(b"{\"unheard_of\":{}}");
    cache.append(&mut journal, &[line(2, false, "2"), strange, line(4, false, "4")]).unwrap();
    let kept = cache.load().unwrap();
    assert_eq!(kept.snapshot.revision, Revision(2));
    assert!(kept.complaints[0].contains("not understood"), "{:?}", kept.complaints);
}

#[test]
fn e6_an_interruption_at_any_step_of_a_write_leaves_one_generation_or_the_other() {
    // After the new file is written beside, and after each of the two renames.
    let directory = two_generations();
    std::fs::copy(file(&directory, CURRENT), file(&directory, BESIDE)).unwrap();
    assert_eq!(revision(&directory), Some(3));
    std::fs::write(file(&directory, BESIDE), b"half").unwrap();
    assert_eq!(revision(&directory), Some(3));
    std::fs::rename(file(&directory, CURRENT), file(&directory, PREVIOUS)).unwrap();
    assert_eq!(revision(&directory), Some(3), "the newest one is the previous one for a moment");
    let cache = cache(&directory);
    cache.write_whole(&line(4, true, "4")).unwrap();
    assert_eq!(revision(&directory), Some(4), "what was left over does not stand in the way");
}

#[test]
fn e7_a_disk_that_refuses_is_reported_and_the_next_write_is_whole() {
    let directory = TempDir::new().unwrap();
    let (writer, outcomes) = writer(&directory);
    let folder = directory.path().join(FOLDER);
    let aside = directory.path().join("aside");
    std::fs::rename(&folder, &aside).unwrap();
    let first = Arc::new(after(&Snapshot::default(), &line(1, true, "1")));
    writer.keep(Arc::clone(&first), ContentDigest::default(), None);
    assert!(outcomes.recv().unwrap().is_err());
    std::fs::rename(&aside, &folder).unwrap();
    let second = Arc::new(after(&first, &line(2, false, "2")));
    writer.keep(Arc::clone(&second), ContentDigest::default(), Some(line(2, false, "2")));
    assert_eq!(outcomes.recv().unwrap(), Ok(Revision(2)));
    assert_eq!(cache(&directory).load().unwrap().snapshot, *second);
}

#[test]
fn e8_links_and_files_that_others_can_use_are_refused() {
    let directory = two_generations();
    let path = file(&directory, CURRENT);
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let kept = cache(&directory).load().unwrap();
    assert_eq!(kept.snapshot.revision, Revision(1), "the previous generation is used");
    assert!(kept.complaints[0].contains("mode 644"), "{:?}", kept.complaints);
    let aside = directory.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    std::fs::set_permissions(&aside, Permissions::from_mode(0o600)).unwrap();
    symlink(&aside, &path).unwrap();
    let kept = cache(&directory).load().unwrap();
    assert_eq!(kept.snapshot.revision, Revision(1));
    assert!(kept.complaints[0].contains("symbolic link"), "{:?}", kept.complaints);
    std::fs::set_permissions(file(&directory, KEY), Permissions::from_mode(0o640)).unwrap();
    let refusal = Cache::open(directory.path(), &"default".parse().unwrap()).err().unwrap();
    assert!(refusal.to_string().contains("mode 640"), "{refusal}");
}

#[test]
fn e8_what_is_kept_is_private_and_encrypted() {
    let directory = two_generations();
    for name in [CURRENT, PREVIOUS, KEY] {
        let mode = file(&directory, name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let bytes = std::fs::read(file(&directory, CURRENT)).unwrap();
    assert!(!bytes.windows(10).any(|window| window == b"service_id"));
    let other = Cache::open(directory.path(), &"other".parse().unwrap()).unwrap();
    let complaints = other.load().unwrap_err();
    assert!(complaints[0].contains("another gateway group"), "{complaints:?}");
}

#[test]
fn a_journal_that_has_doubled_is_written_anew_and_leads_to_the_same() {
    let directory = TempDir::new().unwrap();
    let (writer, outcomes) = writer(&directory);
    let mut newest = Arc::new(after(&Snapshot::default(), &line(1, true, "1")));
    writer.keep(Arc::clone(&newest), ContentDigest::default(), None);
    outcomes.recv().unwrap().unwrap();
    let long = "x".repeat(100_000);
    for revision in 2..40 {
        let line = line(revision, false, &long);
        newest = Arc::new(after(&newest, &line));
        writer.keep(Arc::clone(&newest), ContentDigest::default(), Some(line));
        assert_eq!(outcomes.recv().unwrap(), Ok(Revision(revision)));
    }
    assert!(file(&directory, CURRENT).metadata().unwrap().len() < 3 << 20);
    assert_eq!(cache(&directory).load().unwrap().snapshot, *newest);
}

#[test]
fn what_is_kept_beside_comes_back_whole_or_not_at_all_and_only_to_its_group() {
    let directory = TempDir::new().unwrap();
    let file = |group: &str| {
        let cache = Cache::open(directory.path(), &group.parse().unwrap()).unwrap();
        cache.beside("beside", 200).unwrap()
    };
    assert_eq!(file("default").read().unwrap(), None);
    assert!(file("default").write(b"first").unwrap() && file("default").write(b"second").unwrap());
    assert_eq!(file("default").read().unwrap().unwrap(), b"second");
    assert!(file("other").read().is_err());
    assert!(file("default").write(&[0; 200]).unwrap_err().to_string().contains("larger than 200 bytes"));
    let path = directory.path().join(FOLDER).join("beside");
    let whole = std::fs::read(&path).unwrap();
    for index in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[index] ^= 1 << (index % 8);
        for bytes in [&damaged[..], &whole[..index]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(file("default").read().is_err(), "byte {index}");
        }
    }
}
