//! Request targets: splitting and normalising never panics, and normalising what was normalised changes nothing.

#![no_main]

use gatewright_model::target::{encode_path, is_authority, parse_target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    let _ = is_authority(raw);
    let Ok(target) = parse_target(raw) else { return };
    assert!(target.path.starts_with(b"/"));
    assert!(!target.path.contains(&0));
    if let Some(authority) = target.authority {
        assert!(is_authority(&raw[authority]));
    }

    let mut written = Vec::new();
    encode_path(&target.path, &mut written);
    let again = parse_target(&written).expect("what is written is a target");
    assert_eq!(again.path, target.path);
    assert_eq!((again.authority, again.query), (None, None));
    let mut twice = Vec::new();
    encode_path(&again.path, &mut twice);
    assert_eq!(twice, written);
});
