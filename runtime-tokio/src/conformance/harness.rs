//! Where the stores under test come from.

use std::{fmt, marker::PhantomData};

use quorate_core::{GroupId, Membership, Store};

use super::{
    Disk,
    erased::{AnyStore, Erased, Judge, Trouble, Unjudged, Verdict},
};

/// A store whose I/O can be put on a [`Disk`]: so it can be crashed at every I/O, and each of them can fail.
///
/// ```ignore
/// struct MyHarness;
///
/// impl Harness for MyHarness {
///     type Store = MyStore<Disk>;
///     fn create(&self, disk: &Disk, groups: &[(GroupId, Membership)]) -> Result<MyStore<Disk>, MyError> {
///         MyStore::create_on(disk.clone(), groups)
///     }
///     fn open(&self, disk: &Disk) -> Result<MyStore<Disk>, MyError> {
///         MyStore::open_on(disk.clone())
///     }
///     fn is_absent(&self, error: &MyError) -> bool {
///         matches!(error, MyError::Missing)
///     }
///     fn is_damage(&self, error: &MyError) -> bool {
///         matches!(error, MyError::Damaged(_))
///     }
/// }
///
/// #[test]
/// fn it_conforms() {
///     conformance::all(&MyHarness);
/// }
/// ```
pub trait Harness: Sync {
    /// The store.
    type Store: Store;

    /// Bootstraps a store on an empty disk, or where a bootstrap was cut short, with these groups, each with the membership that
    /// it begins with. It is durable when this returns.
    ///
    /// # Errors
    /// What the store says.
    fn create(
        &self,
        disk: &Disk,
        groups: &[(GroupId, Membership)],
    ) -> Result<Self::Store, <Self::Store as Store>::Error>;

    /// Opens the store that is there.
    ///
    /// # Errors
    /// What the store says.
    fn open(&self, disk: &Disk) -> Result<Self::Store, <Self::Store as Store>::Error>;

    /// Does this error of [`Harness::open`] say that there is no store, for its bootstrap has never come to its end?
    fn is_absent(&self, error: &<Self::Store as Store>::Error) -> bool;

    /// Does this error say that something which was acknowledged is damaged or missing?
    fn is_damage(&self, error: &<Self::Store as Store>::Error) -> bool;

    /// A transfer is resumed exactly where it was synced, or this many bytes before at most: for a store that keeps whole
    /// blocks.
    fn resume_slack(&self) -> u64 {
        0
    }
}

/// A store that is made and opened again by closures, for those whose I/O can't be put on a [`Disk`]: nothing of it is crashed,
/// and nothing fails.
///
/// The first makes a store in a new place, and gives both; the second opens the store that is in that place, once the other is
/// dropped. The place is dropped last.
///
/// ```
/// # use quorate_runtime_tokio::{MemoryStore, conformance::{self, Closures}};
/// let memory = Closures::new(
///     |groups| {
///         let add = |store: MemoryStore, (group, membership)| store.with_group(group, membership);
///         let store = groups.iter().cloned().fold(MemoryStore::default(), add);
///         (store.clone(), store)
///     },
///     |place: &MemoryStore| place.clone(),
/// );
/// conformance::without_faults(&memory);
/// ```
pub struct Closures<P, S, C, R> {
    create: C,
    reopen: R,
    resume_slack: u64,
    made: PhantomData<fn() -> (P, S)>,
}

impl<P, S, C, R> Closures<P, S, C, R>
where
    S: Store,
    C: Fn(&[(GroupId, Membership)]) -> (P, S) + Sync,
    R: Fn(&P) -> S + Sync,
{
    /// These two.
    pub const fn new(create: C, reopen: R) -> Self {
        Self { create, reopen, resume_slack: 0, made: PhantomData }
    }

    /// As [`Harness::resume_slack`].
    #[must_use]
    pub fn resume_slack(mut self, bytes: u64) -> Self {
        self.resume_slack = bytes;
        self
    }
}

impl<P, S, C, R> fmt::Debug for Closures<P, S, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closures").finish_non_exhaustive()
    }
}

/// What checks without faults are run with: any [`Harness`], or [`Closures`].
pub trait Setup: Sync {
    /// Makes a store in a new place.
    #[doc(hidden)]
    fn start(&self, groups: &[(GroupId, Membership)]) -> Started<'_>;

    /// As [`Harness::resume_slack`].
    #[doc(hidden)]
    fn slack(&self) -> u64;
}

/// A store in its place.
#[doc(hidden)]
pub struct Started<'a> {
    // Dropped before its place is, which the closure holds.
    store: Option<Box<dyn AnyStore<'a> + 'a>>,
    reopen: Box<dyn Fn() -> Box<dyn AnyStore<'a> + 'a> + 'a>,
}

/// A store, and what opens it again once it is dropped.
type Parts<'a> = (Box<dyn AnyStore<'a> + 'a>, Box<dyn Fn() -> Box<dyn AnyStore<'a> + 'a> + 'a>);

impl<'a> Started<'a> {
    pub(super) fn into_parts(self) -> Parts<'a> {
        (self.store.expect("it is there but while it is reopened"), self.reopen)
    }

    pub(super) fn store(&mut self) -> &mut (dyn AnyStore<'a> + 'a) {
        self.store.as_deref_mut().expect("it is there but while it is reopened")
    }

    /// Drops it and opens it again.
    pub(super) fn reopen(&mut self) -> &mut (dyn AnyStore<'a> + 'a) {
        self.store = None;
        &mut **self.store.insert((self.reopen)())
    }
}

impl fmt::Debug for Started<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").finish_non_exhaustive()
    }
}

impl<H: Harness> Setup for H {
    fn start(&self, groups: &[(GroupId, Membership)]) -> Started<'_> {
        let disk = Disk::new();
        let store = self
            .make(&disk, groups)
            .unwrap_or_else(|error| panic!("a store can't be made on an empty disk: {error}"));
        let reopen = move || {
            self.reopen(&disk)
                .unwrap_or_else(|error| panic!("a store that was closed can't be opened again: {error}"))
        };
        Started { store: Some(store), reopen: Box::new(reopen) }
    }

    fn slack(&self) -> u64 {
        self.resume_slack()
    }
}

impl<P, S, C, R> Setup for Closures<P, S, C, R>
where
    S: Store,
    C: Fn(&[(GroupId, Membership)]) -> (P, S) + Sync,
    R: Fn(&P) -> S + Sync,
{
    fn start(&self, groups: &[(GroupId, Membership)]) -> Started<'_> {
        let (place, store) = (self.create)(groups);
        let open = |store| -> Box<dyn AnyStore<'_> + '_> { Box::new(Erased { it: store, judge: &Unjudged }) };
        Started { store: Some(open(store)), reopen: Box::new(move || open((self.reopen)(&place))) }
    }

    fn slack(&self) -> u64 {
        self.resume_slack
    }
}

/// A store, or why there is none.
pub(super) type Made<'a> = Result<Box<dyn AnyStore<'a> + 'a>, Trouble>;

/// A harness whose types are not known.
pub(super) trait Maker: Sync {
    fn make<'a>(&'a self, disk: &Disk, groups: &[(GroupId, Membership)]) -> Made<'a>;
    fn reopen<'a>(&'a self, disk: &Disk) -> Made<'a>;
    fn slack(&self) -> u64;
}

impl<H: Harness> Maker for H {
    fn make<'a>(&'a self, disk: &Disk, groups: &[(GroupId, Membership)]) -> Made<'a> {
        made(self, self.create(disk, groups))
    }

    fn reopen<'a>(&'a self, disk: &Disk) -> Made<'a> {
        made(self, self.open(disk))
    }

    fn slack(&self) -> u64 {
        self.resume_slack()
    }
}

fn made<H: Harness>(harness: &H, result: Result<H::Store, <H::Store as Store>::Error>) -> Made<'_> {
    let judge: &dyn Judge<<H::Store as Store>::Error> = harness;
    match result {
        Ok(store) => Ok(Box::new(Erased { it: store, judge })),
        Err(error) => Err(Trouble::of(judge, &error)),
    }
}

impl<H: Harness> Judge<<H::Store as Store>::Error> for H {
    fn judge(&self, error: &<H::Store as Store>::Error) -> Verdict {
        Verdict { absent: self.is_absent(error), damage: self.is_damage(error) }
    }
}
