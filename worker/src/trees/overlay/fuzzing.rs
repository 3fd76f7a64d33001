//! The entry point for `fuzz/`: a patch that somebody sent. Nothing else uses it.

use super::diff;

/// A patch.
///
/// # Panics
/// If what is written for other programs is read as anything else than what was understood.
pub fn patch(bytes: &[u8]) {
    let Ok(files) = diff::parse(bytes) else { return };
    for file in files {
        let mut written = Vec::new();
        file.write(&mut written);
        assert!(!file.path.starts_with('/') && !file.path.split('/').any(|part| part == ".."));
        if file.hunks.is_empty() {
            assert!(written.is_empty());
            continue;
        }
        let mut again = Vec::new();
        match &diff::parse(&written).expect("what was written can be read")[..] {
            [only] => {
                assert_eq!((&only.path, only.change), (&file.path, file.change));
                only.write(&mut again);
            }
            others => panic!("one file became {}", others.len()),
        }
        assert_eq!(again, written);
    }
}
