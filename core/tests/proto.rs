//! `proto/quorate.proto` says what the code does: every frame read by the file alone, and written back the same.

mod common;

use common::messages::message;
use proptest::prelude::*;
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage, prost::Message as _};
use quorate_core::{Membership, MembershipParts, NodeId, wire};

fn descriptors() -> DescriptorPool {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let files = protox::compile([format!("{root}/quorate.proto")], [root]).unwrap();
    DescriptorPool::from_file_descriptor_set(files).unwrap()
}

/// Reads bytes as the file says, finds nothing that it doesn't name, and writes them back the same.
fn read(pool: &DescriptorPool, name: &str, bytes: &[u8]) -> DynamicMessage {
    let descriptor = pool.get_message_by_name(name).unwrap();
    let read = DynamicMessage::decode(descriptor, bytes).unwrap();
    assert_all_known(&read);
    assert_eq!(read.encode_to_vec(), bytes);
    read
}

fn assert_all_known(message: &DynamicMessage) {
    assert_eq!(message.unknown_fields().count(), 0, "the file does not name all of {message:?}");
    for (_, value) in message.fields() {
        let nested = value.as_list().map_or_else(|| vec![value], |list| list.iter().collect());
        for inner in nested.into_iter().filter_map(prost_reflect::Value::as_message) {
            assert_all_known(inner);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_frame_is_what_the_file_says(message in message()) {
        let pool = descriptors_once();
        let frame = wire::encode(&message);
        let (prefix, header) = frame.head.split_at(5);
        prop_assert_eq!(prefix[0], wire::VERSION);
        prop_assert_eq!(u32::from_le_bytes(prefix[1..].try_into().unwrap()) as usize, header.len());
        let read = read(pool, "quorate.v1.Header", header);
        let kinds = read.descriptor().oneofs().next().unwrap();
        let set = kinds.fields().filter(|field| read.has_field(field)).count();
        prop_assert_eq!(set, 1, "exactly one kind");
        let declared = match read.get_field_by_name("append").filter(|_| read.has_field_by_name("append")) {
            Some(append) => append
                .as_message()
                .unwrap()
                .get_field_by_name("runs")
                .unwrap()
                .as_list()
                .unwrap()
                .iter()
                .map(|run| run.as_message().unwrap().get_field_by_name("bytes").unwrap().as_u64().unwrap())
                .collect::<Vec<_>>(),
            None => Vec::new(),
        };
        let actual: Vec<u64> = frame.blocks.iter().map(|block| block.len() as u64).collect();
        prop_assert_eq!(declared, actual);
    }
}

#[test]
fn every_kind_in_the_file_is_known_to_the_code() {
    let pool = descriptors();
    let header = pool.get_message_by_name("quorate.v1.Header").unwrap();
    for field in header.oneofs().next().unwrap().fields() {
        let mut message = DynamicMessage::new(header.clone());
        message.set_field_by_name("term", prost_reflect::Value::U64(1));
        let mut body = DynamicMessage::new(field.kind().as_message().unwrap().clone());
        if field.name() == "install_snapshot" {
            // The only one that is nothing without what is in it.
            let part = |name: &str, bytes: &[u8]| {
                let descriptor = pool.get_message_by_name(name).unwrap();
                prost_reflect::Value::Message(DynamicMessage::decode(descriptor, bytes).unwrap())
            };
            body.set_field_by_name("last", part("quorate.v1.LogId", &[8, 1, 16, 1]));
            let membership = Membership::of_voters([NodeId(1)]).encode();
            body.set_field_by_name("membership", part("quorate.v1.Membership", &membership));
        }
        message.set_field(&field, prost_reflect::Value::Message(body));
        let header = message.encode_to_vec();
        let mut frame = vec![wire::VERSION];
        frame.extend((header.len() as u32).to_le_bytes());
        frame.extend(header);
        let decoded = wire::decode(&frame).unwrap_or_else(|error| panic!("{}: {error}", field.name()));
        assert_eq!(decoded.term.0, 1);
    }
}

#[test]
fn a_membership_is_what_the_file_says() {
    let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
    let parts = MembershipParts {
        voters: ids(&[1, 2, 4]),
        outgoing: ids(&[1, 2, 3]),
        learners: ids(&[7]),
        joining: ids(&[7]),
        next_id: NodeId(9),
        held: true,
    };
    let bytes = Membership::try_from(parts).unwrap().encode();
    let read = read(&descriptors(), "quorate.v1.Membership", &bytes);
    let list = |name: &str| -> Vec<u64> {
        let value = read.get_field_by_name(name).unwrap();
        value.as_list().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
    };
    assert_eq!(read.get_field_by_name("version").unwrap().as_u32(), Some(Membership::VERSION));
    assert_eq!((list("voters"), list("outgoing"), list("learners")), (vec![1, 2, 4], vec![1, 2, 3], vec![7]));
    assert_eq!((list("joining"), read.get_field_by_name("held").unwrap().as_bool()), (vec![7], Some(true)));
    assert_eq!(read.get_field_by_name("next_id").unwrap().as_u64(), Some(9));
}

fn descriptors_once() -> &'static DescriptorPool {
    static POOL: std::sync::OnceLock<DescriptorPool> = std::sync::OnceLock::new();
    POOL.get_or_init(descriptors)
}
