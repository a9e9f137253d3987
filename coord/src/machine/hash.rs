//! A hash that is the same on every platform and in every release: replicas are compared by it.

/// FNV-1a, of 64 bits. It finds replicas that differ by accident; it is no defence against one who makes them differ.
#[derive(Debug)]
pub(super) struct Hasher(u64);

impl Hasher {
    pub(super) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Bytes with their length, so that what lies side by side is told apart.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.raw(&(bytes.len() as u64).to_le_bytes());
        self.raw(bytes);
    }

    pub(super) fn number(&mut self, number: i64) {
        self.raw(&number.to_le_bytes());
    }

    fn raw(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) const fn finish(&self) -> u64 {
        self.0
    }

    /// Half as wide.
    pub(super) const fn finish_32(&self) -> u32 {
        (self.0 ^ (self.0 >> 32)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::Hasher;

    #[test]
    fn it_is_fnv_1a() {
        let mut hasher = Hasher::new();
        hasher.raw(b"foobar");
        assert_eq!(hasher.finish(), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn lengths_count() {
        let hash = |parts: &[&[u8]]| {
            let mut hasher = Hasher::new();
            parts.iter().for_each(|part| hasher.bytes(part));
            hasher.finish()
        };
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
    }
}
