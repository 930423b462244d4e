//! The committed inputs of the fuzz targets, as ordinary test data: what was found once stays found.

use std::path::Path;

/// Calls `check` with every seed of `target`.
pub(crate) fn each(target: &str, check: impl Fn(&[u8])) {
    // Tests run in the folder of their package.
    let folder = Path::new("../../fuzz/seeds").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder of seeds") {
        check(&std::fs::read(entry.expect("an entry").path()).expect("a seed"));
        count += 1;
    }
    assert!(count > 0, "no seeds in {}", folder.display());
}
