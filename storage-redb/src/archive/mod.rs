//! A snapshot as one file: in the directory of a store, and as a backup that can be taken anywhere.
//!
//! It is written from its beginning to its end, without seeking, so that it may be piped. Numbers are little-endian.
//!
//! | what | bytes |
//! | --- | --- |
//! | header | magic (16), version (4), its length (4), cluster (16), node (8), group (8), term (8), index (8), what was announced: yes or no (4), bytes (8), checksum (4); the membership; CRC-32C of all that (4) |
//! | blocks | length (4), CRC-32C (4), up to 64 KiB; all but the last one are full |
//! | end | `0xFFFF_FFFF` (4), bytes in all (8), CRC-32C of them (4), CRC-32C of this (4) |
//!
//! The checksum of a block, and that of the end, goes over the header's and the block's place as well: a block of another snapshot,
//! or at another place, is noticed. A file without its end is not whole.

mod blocks;
mod format;
mod reader;
mod writer;

pub use format::ArchiveHeader;
pub use reader::ArchiveReader;
pub use writer::ArchiveWriter;

pub(crate) use blocks::Blocks;
pub(crate) use format::{Prefix, block_at};
pub(crate) use reader::{Body, check_place};
pub(crate) use writer::sum_of;
