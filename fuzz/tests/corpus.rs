//! Every corpus file still does what it should, on a stable toolchain.

use std::{fs, path::Path};

#[test]
fn every_corpus_file_passes() {
    for (name, target) in quorate_fuzz::TARGETS {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let files: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 10, "the corpus of {name} is missing: {}", dir.display());
        for file in files {
            target(&fs::read(&file).unwrap());
        }
    }
}
