//! Recordings taken apart and put together again, to see that what was tampered with is found.

use std::{fs, path::Path};

use quorate_core::recording::{CHUNK_HEADER, MAGIC, Note, NoteRef, Payloads, VERSION, pack};

/// The notes of a segment, each as its bytes.
pub(crate) type Notes = Vec<Vec<u8>>;

/// Bytes in front of the first chunk.
pub(crate) const BEFORE: usize = MAGIC.len() + 4;

pub(crate) fn read(file: &Path) -> Notes {
    let whole = fs::read(file).unwrap();
    let mut rest = &whole[BEFORE..];
    let mut notes = Vec::new();
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
        let (mut chunk, after) = rest[CHUNK_HEADER..].split_at(len);
        while !chunk.is_empty() {
            let (_, others) = postcard::take_from_bytes::<Note>(chunk).unwrap();
            notes.push(chunk[..chunk.len() - others.len()].to_vec());
            chunk = others;
        }
        rest = after;
    }
    notes
}

pub(crate) fn write(file: &Path, notes: &Notes) {
    let chunk = notes.concat();
    let mut bytes = [MAGIC.as_slice(), &VERSION.to_le_bytes()].concat();
    bytes.extend_from_slice(&u32::try_from(chunk.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&chunk).to_le_bytes());
    bytes.extend_from_slice(&chunk);
    fs::write(file, bytes).unwrap();
}

pub(crate) fn parse(note: &[u8]) -> Note {
    postcard::from_bytes(note).unwrap()
}

pub(crate) fn packed(note: &NoteRef<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(note, Payloads::Kept, &mut bytes);
    bytes
}
