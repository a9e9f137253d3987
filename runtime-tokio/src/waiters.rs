//! Who waits for which token.

use std::collections::VecDeque;

use quorate_core::{Token, Tokens};

/// The proposers that wait, by token. Tokens are given out in order and proposals are resolved in the order of the
/// log, so a queue does what a map would: the front is what is oldest. It is as long as there are proposals without
/// an outcome.
#[derive(Debug)]
pub(crate) struct Waiters<W> {
    first: u64,
    slots: VecDeque<Option<W>>,
}

impl<W> Waiters<W> {
    pub(crate) const fn new() -> Self {
        Self { first: 1, slots: VecDeque::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The token that the next one gets.
    pub(crate) fn next(&self) -> Token {
        Token(self.first + self.slots.len() as u64)
    }

    /// Adds these, with tokens from [`Waiters::next`] on.
    pub(crate) fn extend(&mut self, waiters: impl IntoIterator<Item = W>) {
        self.slots.extend(waiters.into_iter().map(Some));
    }

    /// Hands those with these tokens to `each`, with their place in `tokens`; whoever isn't there is passed over.
    pub(crate) fn take(&mut self, tokens: Tokens, mut each: impl FnMut(u64, W)) {
        for (place, token) in tokens.iter().enumerate() {
            let Some(at) = token.0.checked_sub(self.first) else { continue };
            let slot = usize::try_from(at).ok().and_then(|at| self.slots.get_mut(at));
            if let Some(waiter) = slot.and_then(Option::take) {
                each(place as u64, waiter);
            }
            while let Some(None) = self.slots.front() {
                self.slots.pop_front();
                self.first += 1;
            }
        }
    }

    /// All of them; nobody waits any more.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = W> {
        self.first += self.slots.len() as u64;
        std::mem::take(&mut self.slots).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(waiters: &mut Waiters<&'static str>, first: u64, count: u64) -> Vec<(u64, &'static str)> {
        let mut taken = Vec::new();
        waiters.take(Tokens { first: Token(first), count }, |place, waiter| taken.push((place, waiter)));
        taken
    }

    #[test]
    fn each_is_found_once_and_the_front_is_given_back() {
        let mut waiters = Waiters::new();
        assert_eq!(waiters.next(), Token(1));
        waiters.extend(["a", "b", "c", "d"]);
        assert_eq!(waiters.next(), Token(5));
        assert_eq!(take(&mut waiters, 2, 2), [(0, "b"), (1, "c")]);
        assert_eq!(waiters.slots.len(), 4, "a holds its place");
        assert_eq!(take(&mut waiters, 1, 2), [(0, "a")]);
        assert_eq!(waiters.slots.len(), 1, "only d is left");
        assert_eq!(take(&mut waiters, 0, 9), [(4, "d")]);
        assert!(waiters.is_empty());
        assert_eq!(waiters.next(), Token(5));
        waiters.extend(["e"]);
        assert_eq!(take(&mut waiters, 4, 1), []);
        assert_eq!(waiters.take_all().collect::<Vec<_>>(), ["e"]);
        assert_eq!(waiters.next(), Token(6));
    }
}
