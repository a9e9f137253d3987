//! Writes [postcard](https://postcard.jamesmunns.com/wire-format)'s format, which any reader of that reads back, and can leave
//! payloads out on the way.
//!
//! Not postcard's own writer, for the sake of that: wherever in an input, in an action or in the core itself entries are kept, they
//! come by here as a [`Block`](super::block), so no holder of payloads can be forgotten.

use alloc::{string::ToString as _, vec::Vec};
use core::fmt;

use serde::ser::{self, Serialize};

use super::block::{BLOCK, LEFT_OUT, LeftOut};

/// What becomes of payloads: of what is proposed, and so of what clients write.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
pub enum Payloads {
    /// They are in the recording.
    #[default]
    Kept,
    /// Only how long each is. A replay has zeros in their place and does the same, for the core doesn't look at them. No hash
    /// either: of something short, such as a PIN, that would say as much as the bytes.
    LeftOut,
}

/// Adds something to `out`. Only what serde calls a sequence of unknown length can't be written, and nothing here has one.
pub fn pack(item: &impl Serialize, payloads: Payloads, out: &mut Vec<u8>) {
    let _written = item.serialize(&mut Packer { out, payloads, in_block: false });
}

struct Packer<'a> {
    out: &'a mut Vec<u8>,
    payloads: Payloads,
    /// The bytes that come next are a block's.
    in_block: bool,
}

impl Packer<'_> {
    #[inline]
    fn varint(&mut self, mut number: u64) {
        while number > 0x7F {
            self.out.push((number as u8) | 0x80);
            number >>= 7;
        }
        self.out.push(number as u8);
    }

    fn wide_varint(&mut self, mut number: u128) {
        while number > 0x7F {
            self.out.push((number as u8) | 0x80);
            number >>= 7;
        }
        self.out.push(number as u8);
    }

    fn zigzag(&mut self, number: i64) {
        self.varint(((number << 1) ^ (number >> 63)) as u64);
    }

    fn len(&mut self, len: Option<usize>) -> Result<(), Unsized> {
        self.varint(len.ok_or(Unsized)? as u64);
        Ok(())
    }
}

/// A sequence that doesn't say how long it is.
#[derive(Debug)]
struct Unsized;

impl fmt::Display for Unsized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence of unknown length")
    }
}

impl core::error::Error for Unsized {}

impl ser::Error for Unsized {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl ser::Serializer for &mut Packer<'_> {
    type Ok = ();
    type Error = Unsized;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, v: bool) -> Result<(), Unsized> {
        self.out.push(u8::from(v));
        Ok(())
    }

    fn serialize_i8(self, v: i8) -> Result<(), Unsized> {
        self.out.push(v as u8);
        Ok(())
    }

    fn serialize_i16(self, v: i16) -> Result<(), Unsized> {
        self.zigzag(v.into());
        Ok(())
    }

    fn serialize_i32(self, v: i32) -> Result<(), Unsized> {
        self.zigzag(v.into());
        Ok(())
    }

    fn serialize_i64(self, v: i64) -> Result<(), Unsized> {
        self.zigzag(v);
        Ok(())
    }

    fn serialize_i128(self, v: i128) -> Result<(), Unsized> {
        self.wide_varint(((v << 1) ^ (v >> 127)) as u128);
        Ok(())
    }

    #[inline]
    fn serialize_u8(self, v: u8) -> Result<(), Unsized> {
        self.out.push(v);
        Ok(())
    }

    fn serialize_u16(self, v: u16) -> Result<(), Unsized> {
        self.varint(v.into());
        Ok(())
    }

    fn serialize_u32(self, v: u32) -> Result<(), Unsized> {
        self.varint(v.into());
        Ok(())
    }

    #[inline]
    fn serialize_u64(self, v: u64) -> Result<(), Unsized> {
        self.varint(v);
        Ok(())
    }

    fn serialize_u128(self, v: u128) -> Result<(), Unsized> {
        self.wide_varint(v);
        Ok(())
    }

    fn serialize_f32(self, v: f32) -> Result<(), Unsized> {
        self.out.extend_from_slice(&v.to_bits().to_le_bytes());
        Ok(())
    }

    fn serialize_f64(self, v: f64) -> Result<(), Unsized> {
        self.out.extend_from_slice(&v.to_bits().to_le_bytes());
        Ok(())
    }

    fn serialize_char(self, v: char) -> Result<(), Unsized> {
        self.serialize_str(v.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, v: &str) -> Result<(), Unsized> {
        self.varint(v.len() as u64);
        self.out.extend_from_slice(v.as_bytes());
        Ok(())
    }

    #[inline]
    fn serialize_bytes(self, v: &[u8]) -> Result<(), Unsized> {
        if self.in_block {
            self.in_block = false;
            return LeftOut(v).serialize(self);
        }
        self.varint(v.len() as u64);
        self.out.extend_from_slice(v);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Unsized> {
        self.out.push(0);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unsized> {
        self.out.push(1);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Unsized> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unsized> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Result<(), Unsized> {
        self.varint(index.into());
        Ok(())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Unsized> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Unsized> {
        self.in_block = name == BLOCK && self.payloads == Payloads::LeftOut;
        self.varint(if self.in_block { LEFT_OUT.into() } else { index.into() });
        value.serialize(self)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self, Unsized> {
        self.len(len)?;
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Unsized> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Unsized> {
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Unsized> {
        self.varint(index.into());
        Ok(self)
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self, Unsized> {
        self.len(len)?;
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Unsized> {
        Ok(self)
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Unsized> {
        self.varint(index.into());
        Ok(self)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), Unsized> {
        self.serialize_str(&value.to_string())
    }
}

/// Parts follow one another, and nothing stands between them or after the last.
macro_rules! parts {
    ($($of:ident :: $method:ident $(($name:ty))?),+) => { $(
        impl ser::$of for &mut Packer<'_> {
            type Ok = ();
            type Error = Unsized;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $name,)? value: &T) -> Result<(), Unsized> {
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), Unsized> {
                Ok(())
            }
        }
    )+ };
}

parts! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
    SerializeStruct::serialize_field(&'static str),
    SerializeStructVariant::serialize_field(&'static str)
}

impl ser::SerializeMap for &mut Packer<'_> {
    type Ok = ();
    type Error = Unsized;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unsized> {
        key.serialize(&mut **self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unsized> {
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), Unsized> {
        Ok(())
    }
}
