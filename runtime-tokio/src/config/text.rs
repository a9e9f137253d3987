//! How durations and sizes are written.

/// A duration that must be there: `"150ms"`, `"1h 30m"`.
pub(crate) mod duration {
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
pub(crate) mod bytes {
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
            parse(text)
        }
    }

    pub(super) fn parse<E: de::Error>(text: &str) -> Result<u64, E> {
        match text.parse() {
            Ok(ByteSize(size)) => Ok(size),
            Err(error) => Err(E::custom(format!("{text:?} is no size: {error}"))),
        }
    }
}

/// Bytes a second: a size, or `"unlimited"`.
pub(crate) mod rate {
    use std::{fmt, num::NonZeroU64};

    use serde::{Deserializer, Serializer, de};

    const UNLIMITED: &str = "unlimited";

    #[expect(clippy::ref_option, reason = "serde hands over the field")]
    pub(crate) fn serialize<S: Serializer>(
        rate: &Option<NonZeroU64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match rate {
            None => serializer.serialize_str(UNLIMITED),
            Some(rate) => serializer.serialize_u64(rate.get()),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<NonZeroU64>, D::Error> {
        deserializer.deserialize_any(Visitor)
    }

    struct Visitor;

    impl Visitor {
        fn rate<E: de::Error>(self, bytes: u64) -> Result<Option<NonZeroU64>, E> {
            let rate = NonZeroU64::new(bytes);
            rate.map(Some).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(0), &self))
        }
    }

    impl de::Visitor<'_> for Visitor {
        type Value = Option<NonZeroU64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes a second, at least 1: a number, a text such as \"16MiB\", or \"unlimited\"")
        }

        fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Self::Value, E> {
            self.rate(bytes)
        }

        fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Self::Value, E> {
            let bytes = u64::try_from(bytes);
            self.rate(bytes.map_err(|_| E::custom("a rate is not negative"))?)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            if text == UNLIMITED {
                return Ok(None);
            }
            self.rate(super::bytes::parse(text)?)
        }
    }
}
