//! A list that is nearly always of one: kept in place, without an allocation.

use alloc::{vec, vec::Vec};
use core::{fmt, slice};

/// Zero, one or many of `T`; one takes no allocation.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(from = "Vec<T>"))]
pub struct Few<T>(Repr<T>);

#[derive(Clone, PartialEq, Eq)]
enum Repr<T> {
    None,
    One(T),
    Many(Vec<T>),
}

impl<T> Few<T> {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self(Repr::None)
    }

    /// A list of one.
    #[must_use]
    pub const fn one(item: T) -> Self {
        Self(Repr::One(item))
    }

    /// Adds at the end.
    #[inline]
    pub fn push(&mut self, item: T) {
        match &mut self.0 {
            Repr::None => self.0 = Repr::One(item),
            Repr::One(_) => self.push_second(item),
            Repr::Many(items) => items.push(item),
        }
    }

    #[cold]
    fn push_second(&mut self, item: T) {
        let mut items = Vec::with_capacity(4);
        items.extend(core::mem::take(self));
        items.push(item);
        self.0 = Repr::Many(items);
    }

    /// All of them, in order.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[T] {
        // Asked first, for it is nearly always so.
        if let Some(item) = self.only() {
            return slice::from_ref(item);
        }
        if let Repr::Many(items) = &self.0 { items } else { &[] }
    }

    /// Each of them, in order.
    pub fn iter(&self) -> slice::Iter<'_, T> {
        self.as_slice().iter()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// None at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// The first.
    #[must_use]
    #[inline]
    pub fn first(&self) -> Option<&T> {
        self.only().or_else(|| self.as_slice().first())
    }

    /// The last.
    #[must_use]
    #[inline]
    pub fn last(&self) -> Option<&T> {
        self.only().or_else(|| self.as_slice().last())
    }

    /// The one, if it is kept in place: nearly always, and told by one comparison.
    #[inline]
    pub(crate) const fn only(&self) -> Option<&T> {
        if let Repr::One(item) = &self.0 { Some(item) } else { None }
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// As its slice: how it is kept makes no difference.
#[cfg(feature = "serde")]
impl<T: serde::Serialize> serde::Serialize for Few<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_slice().serialize(serializer)
    }
}

impl<T: fmt::Debug> fmt::Debug for Few<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// As its slice hashes: how it is kept makes no difference.
impl<T: core::hash::Hash> core::hash::Hash for Few<T> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(mut items: Vec<T>) -> Self {
        if items.len() > 1 { Self(Repr::Many(items)) } else { items.pop().map_or_else(Self::new, Self::one) }
    }
}

impl<T> From<Few<T>> for Vec<T> {
    fn from(few: Few<T>) -> Self {
        match few.0 {
            Repr::None => Self::new(),
            Repr::One(item) => vec![item],
            Repr::Many(items) => items,
        }
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut few = Self::new();
        for item in items {
            few.push(item);
        }
        few
    }
}

impl<T> IntoIterator for Few<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(match self.0 {
            Repr::None => Inner::One(None),
            Repr::One(item) => Inner::One(Some(item)),
            Repr::Many(items) => Inner::Many(items.into_iter()),
        })
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The items of a [`Few`], by value.
#[derive(Debug)]
pub struct IntoIter<T>(Inner<T>);

#[derive(Debug)]
enum Inner<T> {
    One(Option<T>),
    Many(vec::IntoIter<T>),
}

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            Inner::One(item) => item.take(),
            Inner::Many(items) => items.next(),
        }
    }

    #[inline(always)]
    fn fold<B, F: FnMut(B, T) -> B>(self, init: B, mut f: F) -> B {
        match self.0 {
            Inner::One(Some(item)) => f(init, item),
            Inner::One(None) => init,
            Inner::Many(items) => items.fold(init, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_from_none_to_many_in_order() {
        let mut few = Few::new();
        assert!(few.is_empty() && few.first().is_none());
        for n in 0..4 {
            few.push(n);
            assert_eq!(few.len(), n + 1);
            assert_eq!(few.last(), Some(&n));
        }
        assert_eq!(few.as_slice(), &[0, 1, 2, 3]);
        assert_eq!(few.clone().into_iter().collect::<Vec<_>>(), Vec::from(few));
        assert_eq!(Few::from(vec![7]).as_slice(), &[7]);
    }
}
