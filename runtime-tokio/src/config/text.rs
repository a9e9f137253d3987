//! How durations and sizes are written.

/// A duration that must be there: `"150ms"`, `"1h 30m"`.
pub(super) mod duration {
    use std::{fmt, time::Duration};

    use serde::{Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_str(Visitor)
    }

    struct Visitor;

    impl de::Visitor<'_> for Visitor {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration with its unit, such as \"150ms\" or \"1h 30m\"")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            humantime::parse_duration(text)
                .map_err(|error| E::custom(format!("{text:?} is no duration: {error}")))
        }
    }
}

/// A duration that may be left out.
pub(super) mod some_duration {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde hands over the field")]
    pub(crate) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            None => serializer.serialize_none(),
            Some(duration) => super::duration::serialize(duration, serializer),
        }
    }

    /// What is left out is not looked for here: a default takes its place.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::duration::deserialize(deserializer).map(Some)
    }
}

/// A size that must be there: a number of bytes, or `"16MiB"`.
pub(super) mod bytes {
    use std::fmt;

    use bytesize::ByteSize;
    use serde::{Deserializer, Serializer, de, ser};

    // The plain number: with a unit it would be rounded.
    pub(crate) fn serialize<T: Copy + TryInto<u64>, S: Serializer>(
        size: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let size = (*size).try_into().map_err(|_| ser::Error::custom("a size is below 2^64"))?;
        serializer.serialize_u64(size)
    }

    pub(crate) fn deserialize<'de, T: TryFrom<u64>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let size = deserializer.deserialize_any(Visitor)?;
        T::try_from(size)
            .map_err(|_| de::Error::custom(format!("{size} B is more than this machine can count")))
    }

    struct Visitor;

    impl de::Visitor<'_> for Visitor {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of bytes, or a text such as \"16MiB\"")
        }

        fn visit_u64<E: de::Error>(self, size: u64) -> Result<u64, E> {
            Ok(size)
        }

        fn visit_i64<E: de::Error>(self, size: i64) -> Result<u64, E> {
            u64::try_from(size).map_err(|_| E::invalid_value(de::Unexpected::Signed(size), &self))
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
            match text.parse() {
                Ok(ByteSize(size)) => Ok(size),
                Err(error) => Err(E::custom(format!("{text:?} is no size: {error}"))),
            }
        }
    }
}

/// A size that may be left out.
pub(super) mod some_bytes {
    use serde::{Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde hands over the field")]
    pub(crate) fn serialize<S: Serializer>(size: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        size.serialize(serializer)
    }

    /// What is left out is not looked for here: a default takes its place.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        super::bytes::deserialize(deserializer).map(Some)
    }
}
