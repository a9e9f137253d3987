//! What any [`Store`](quorate_core::Store) is held against: for authors of stores, in the tests of their crates (feature `conformance`).
//!
//! A [`Harness`] says how a store is made and opened on a [`Disk`], a directory in memory with faults. Then [`all`] runs
//! everything there is:
//!
//! - *the contract*, without faults: round trips against a model, new incarnations, what must be refused, truncations,
//!   compactions and installations, groups, sizes, readers beside the writer, snapshots, and cores that run over the store;
//! - *crashes* after every I/O of random workloads, with all kinds of what a crash leaves ([`crash_points`]);
//! - *errors* of every I/O, once and for good, and a full disk ([`io_errors`], [`full_disk`]);
//! - *damage*: bytes that change behind the store's back ([`notices_damage`]).
//!
//! A store whose I/O can't be put on a [`Disk`] has the contract alone, with [`Closures`] and [`without_faults`]. Each check is a function of its
//! own, too, and panics with what it has found: the seed, the point, what was acknowledged, what was there.
//!
//! # What a disk is taken to be
//!
//! Bytes of a file are durable once the file is synced, names once the directory is; a rename is atomic; a sector of 512 bytes is
//! written whole or not at all. What is not synced may be there or not after a crash, in any order, and a sync that fails
//! leaves some of it, and no later one makes up for that, though reading goes on showing all. Who reads a store after a crash of its
//! process alone sees all that it wrote.
//!
//! # What is not checked
//!
//! Time: how long a call takes, and whether staging or reading a snapshot holds up a commit on another thread. Errors of reads. Disks that lie
//! about a sync. Two processes that open one store.

mod contract;
mod crashes;
mod damage;
mod disk;
mod erased;
mod errors;
mod groups;
mod harness;
mod killed;
mod model;
mod plan;
mod readers;
mod rng;
mod run;
mod staging;
mod subject;
mod suite;
mod with_core;

pub use contract::{
    begins_later, incarnations_are_new, keeps_groups_apart, refuses_what_does_not_fit, round_trips, settles,
    takes_any_size, truncates,
};
pub use crashes::{Report, crash_points, group_crash_points, snapshot_crash_points};
pub use damage::{Rot, notices_damage};
pub use disk::{Disk, DiskFile, Event, Failed, Fault, IoKind, Left, Replay, Trace};
pub use errors::{Faults, full_disk, group_io_errors, io_errors};
pub use groups::{
    creates_groups, leaves_nothing_of_removed_groups, lists_groups, recovers_many, refuses_one_group_alone,
    removes_groups, removes_what_is_staged,
};
pub use harness::{Closures, Harness, Setup, Started};
pub use killed::{check_killed, work};
pub use readers::{loads_what_is_asked_for, reads_beside_the_writer};
pub use rng::Rng;
pub use staging::{
    leaves_nothing_behind, names_what_the_log_rests_on, publishes_snapshots, reads_what_is_removed,
    refuses_other_bytes, resumes_transfers, stages_one_at_a_time,
};
pub use suite::{Check, Summary, all, checks, without_faults};
pub use with_core::{agrees_in_a_cluster, follows_a_leader};
