//! An ordered map whose copy is cheap.

use std::{collections::BTreeMap, mem, ops::Bound, sync::Arc};

use bytes::Bytes;

use super::range::Bounds;

/// A map in the order of its keys, cut into pieces of up to `N` keys. A clone shares the pieces, and each of the two copies
/// a piece when it first changes something there: so a clone costs as much as there are pieces, not keys, and what it
/// costs later is spread over the changes that follow.
#[derive(Clone, Debug)]
pub(super) struct CowMap<V, const N: usize = 128> {
    /// By where each begins, which is not above its first key. The first begins with the empty key. None is empty, but
    /// for the first.
    pieces: BTreeMap<Bytes, Piece<V>>,
}

/// Keys that lie side by side.
type Piece<V> = Arc<Vec<(Bytes, V)>>;

impl<V: Clone, const N: usize> CowMap<V, N> {
    /// With nothing in it.
    pub(super) const fn new() -> Self {
        Self { pieces: BTreeMap::new() }
    }

    /// How many keys.
    pub(super) fn len(&self) -> usize {
        self.pieces.values().map(|piece| piece.len()).sum()
    }

    /// All of it, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(Bytes, V)> {
        self.pieces.values().flat_map(|piece| piece.iter())
    }

    /// What is at `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<&(Bytes, V)> {
        let (_, piece) = self.pieces.range::<[u8], _>(upto(key)).next_back()?;
        piece.get(find(piece, key).ok()?)
    }

    /// What is within these bounds, in order.
    pub(super) fn range<'a>(&'a self, (begin, end): Bounds<'a>) -> impl Iterator<Item = &'a (Bytes, V)> {
        let first = self.pieces.range::<[u8], _>(upto(begin)).next_back();
        let first = first.map_or(begin, |(first, _)| first);
        let pieces = self.pieces.range::<[u8], _>((Bound::Included(first), Bound::Unbounded));
        let from_begin = move |piece: &'a Piece<V>| piece.get(find(piece, begin).unwrap_or_else(|at| at)..);
        pieces.flat_map(move |(_, piece)| from_begin(piece).into_iter().flatten()).take_while(
            move |(key, _)| match end {
                Bound::Included(end) => key <= end,
                Bound::Excluded(end) => key < end,
                Bound::Unbounded => true,
            },
        )
    }

    /// Takes `item` into what is at `key`, or puts there what `new` makes of it: a key and a value.
    pub(super) fn update<T>(
        &mut self,
        key: &[u8],
        item: T,
        change: impl FnOnce(&mut V, T),
        new: impl FnOnce(T) -> (Bytes, V),
    ) {
        if self.pieces.is_empty() {
            self.pieces.insert(Bytes::new(), Arc::default());
        }
        let Some((_, shared)) = self.pieces.range_mut::<[u8], _>(upto(key)).next_back() else {
            // The first piece begins with the empty key: there is always one.
            return;
        };
        let piece = Arc::make_mut(shared);
        match find(piece, key) {
            Ok(at) => {
                if let Some((_, value)) = piece.get_mut(at) {
                    change(value, item);
                }
            }
            Err(at) => {
                piece.insert(at, new(item));
                if piece.len() > N {
                    // Keys that come in order leave full pieces behind.
                    let cut = if at == N { N } else { piece.len() / 2 };
                    let rest = piece.split_off(cut);
                    if let Some((first, _)) = rest.first() {
                        self.pieces.insert(first.clone(), Arc::new(rest));
                    }
                }
            }
        }
    }

    /// Lets `change` change every value, and drops those of which it says so. `wanted` says whether it would do either; only
    /// then is anything copied. Looks at every key.
    pub(super) fn retain(
        &mut self,
        wanted: impl Fn(&V) -> bool,
        mut change: impl FnMut(&Bytes, &mut V) -> bool,
    ) {
        let mut last: Option<(Bytes, Piece<V>)> = None;
        for (begin, mut shared) in mem::take(&mut self.pieces) {
            if shared.iter().any(|(_, value)| wanted(value)) {
                Arc::make_mut(&mut shared).retain_mut(|(key, value)| change(key, value));
            }
            match &mut last {
                Some(_) if shared.is_empty() => {}
                // Small ones that lie side by side become one.
                Some((_, before)) if before.len() + shared.len() <= N / 2 => {
                    Arc::make_mut(before).extend(shared.iter().cloned());
                }
                Some(_) => self.pieces.extend(last.replace((begin, shared))),
                None => last = Some((begin, shared)),
            }
        }
        self.pieces.extend(last);
    }
}

impl<V: Clone + PartialEq, const N: usize> PartialEq for CowMap<V, N> {
    /// However they are cut.
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<V: Clone + Eq, const N: usize> Eq for CowMap<V, N> {}

fn upto(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(key))
}

fn find<V>(piece: &[(Bytes, V)], key: &[u8]) -> Result<usize, usize> {
    piece.binary_search_by(|(other, _)| other.as_ref().cmp(key))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    type Small = CowMap<u32, 4>;

    /// What is between the keys `a` and `b`.
    fn range(map: &Small, a: &[u8], b: &[u8]) -> Vec<(Bytes, u32)> {
        map.range((a, Bound::Excluded(b))).cloned().collect()
    }

    impl Small {
        fn check(&self) {
            for (n, (begin, piece)) in self.pieces.iter().enumerate() {
                assert_eq!(n == 0, begin.is_empty());
                assert!(piece.len() <= 4 && (n == 0 || !piece.is_empty()));
                assert!(piece.first().is_none_or(|(first, _)| begin <= first));
            }
            assert!(self.iter().is_sorted_by(|a, b| a.0 < b.0));
        }
    }

    proptest! {
        /// It is an ordered map, and a clone of it stays as it was.
        #[test]
        fn behaves_as_a_map_does(
            steps in vec((vec(0_u8..4, 0..4), 0_u32..20), 0..120),
            bounds in vec((vec(0_u8..4, 0..4), vec(0_u8..4, 0..4)), 10),
        ) {
            let (mut map, mut model) = (Small::new(), BTreeMap::<Vec<u8>, u32>::new());
            let mut kept = Vec::new();
            for (key, number) in steps {
                if number == 0 {
                    // Odd ones go, even ones are halved but for 0.
                    let wanted = |value: &u32| *value > 0;
                    let change = |value: &mut u32| {
                        let stays = value.is_multiple_of(2);
                        *value /= 2;
                        stays
                    };
                    map.retain(wanted, |_, value| change(value));
                    model.retain(|_, value| change(value));
                } else {
                    map.update(&key, number, |value, more| *value += more, |number| (key.clone().into(), number));
                    model.entry(key).and_modify(|value| *value += number).or_insert(number);
                }
                map.check();
                kept.push((map.clone(), model.clone()));
            }
            for (map, model) in &kept {
                prop_assert_eq!(map.len(), model.len());
                let entry = |(key, value): (&Vec<u8>, &u32)| (key.clone().into(), *value);
                prop_assert!(map.iter().cloned().eq(model.iter().map(entry)));
                for (key, value) in model {
                    prop_assert_eq!(map.get(key), Some(&(key.clone().into(), *value)));
                }
                for (a, b) in &bounds {
                    let (a, b) = (a.min(b), a.max(b));
                    let expected = model.range(a.clone()..b.clone()).map(entry);
                    prop_assert_eq!(range(map, a, b), expected.collect::<Vec<_>>());
                    prop_assert_eq!(map.get(a).is_some(), model.contains_key(a));
                }
            }
        }
    }

    #[test]
    fn a_clone_shares_all_but_what_is_changed_and_keys_in_order_leave_full_pieces() {
        let mut map = Small::new();
        for key in 0..40_u8 {
            map.update(&[key], 0, |_, _| (), |zero| (vec![key].into(), zero));
        }
        assert_eq!(map.pieces.len(), 10);
        let clone = map.clone();
        map.update(&[17], 1, |value, one| *value += one, |_| unreachable!("it is there"));
        let shared = map.pieces.values().zip(clone.pieces.values()).filter(|(a, b)| Arc::ptr_eq(a, b));
        assert_eq!(shared.count(), 9);
        assert_ne!(map, clone);
        // What changes nothing copies nothing.
        let mut other = clone.clone();
        other.retain(|_| false, |_, _| false);
        assert!(other.pieces.values().zip(clone.pieces.values()).all(|(a, b)| Arc::ptr_eq(a, b)));
        other.update(&[17], 1, |value, one| *value += one, |_| unreachable!("it is there"));
        assert_eq!(map, other);
    }
}
