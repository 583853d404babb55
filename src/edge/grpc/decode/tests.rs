use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::encoding::encode_varint;

use super::*;

/// Both readers agree. True: prost does not refuse.
fn agree(message: &[u8]) -> bool {
    let mut tree = None;
    let read = pb::RateLimitRequest::decode(message).map_err(|error| error.to_string());
    let expected = read.as_ref().map(unchecked_from_pb);
    let request = request(message, &mut tree).map_err(|error| error.to_string());
    assert_eq!(request.as_ref(), expected.as_ref().map_err(|error| *error));
    match plain(message) {
        Some(plain) => assert_eq!(Ok(plain), expected, "{message:?}"),
        None => assert!(expected.is_err() || has_groups(message), "{message:?}"),
    }
    expected.is_ok()
}

/// True if a field may be the beginning of a group.
fn has_groups(message: &[u8]) -> bool {
    message.iter().any(|byte| byte & 7 == 3)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    // Any bytes: the protocol's strings are not checked.
    vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn descriptor_of_prost() -> impl Strategy<Value = pb::RateLimitDescriptor> {
    use pb::rate_limit_descriptor::{Entry, RateLimitOverride};
    let entry = (bytes(), bytes()).prop_map(|(key, value)| Entry { key, value });
    let limit = (any::<u32>(), -1..9_i32, any::<Option<u32>>()).prop_map(
        |(requests_per_unit, unit, unit_multiplier)| RateLimitOverride {
            requests_per_unit,
            unit,
            unit_multiplier,
        },
    );
    let hits = prop_oneof![Just(None), (0..3_u64).prop_map(Some), any::<u64>().prop_map(Some)];
    (vec(entry, 0..4), proptest::option::of(limit), hits, any::<bool>()).prop_map(
        |(entries, limit, hits_addend, is_negative_hits)| pb::RateLimitDescriptor {
            entries,
            limit,
            hits_addend,
            is_negative_hits,
        },
    )
}

fn request_of_prost() -> impl Strategy<Value = pb::RateLimitRequest> {
    let hits = prop_oneof![0..3_u32, any::<u32>()];
    (bytes(), vec(descriptor_of_prost(), 0..4), hits).prop_map(
        |(domain, descriptors, hits_addend)| pb::RateLimitRequest {
            domain,
            descriptors,
            hits_addend,
        },
    )
}

/// A message of fields with small numbers, of any types and nested: most are no requests.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let varint = prop_oneof![0..300_u64, any::<u64>()];
    let leaf = (1..6_u64, varint, 0..7_u64).prop_map(|(number, value, of)| {
        let (kind, content) = match of {
            0 => (1, value.to_le_bytes().to_vec()),
            1 => (5, (value as u32).to_le_bytes().to_vec()),
            2 => (2, vec![0]),
            // A group with a field, and its end.
            3 => (3, varints(&[0x08, value, (number << 3) | 4])),
            _ => (0, varints(&[value])),
        };
        [varints(&[(number << 3) | kind]), content].concat()
    });
    leaf.prop_recursive(4, 40, 5, |inner| {
        (1..6_u64, vec(inner, 0..5)).prop_map(|(number, fields)| {
            let content = fields.concat();
            [varints(&[(number << 3) | 2, content.len() as u64]), content].concat()
        })
    })
}

fn varints(values: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        encode_varint(*value, &mut bytes);
    }
    bytes
}

proptest! {
    #[test]
    fn requests_of_callers_need_no_prost(sent in request_of_prost()) {
        let message = sent.encode_to_vec();
        prop_assert_eq!(plain(&message), Some(unchecked_from_pb(&sent)));
    }

    #[test]
    fn messages_after_each_other_are_merged(parts in vec(request_of_prost(), 1..4)) {
        let joined: Vec<u8> = parts.iter().flat_map(prost::Message::encode_to_vec).collect();
        prop_assert!(agree(&joined));
    }

    #[test]
    fn changed_messages_are_read_as_by_prost(
        sent in request_of_prost(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in any::<prop::sample::Index>(),
    ) {
        let mut message = sent.encode_to_vec();
        if !message.is_empty() {
            for (at, byte) in &changes {
                let at = at.index(message.len());
                message[at] = *byte;
            }
            agree(&message);
            message.truncate(end.index(message.len()));
        }
        agree(&message);
    }

    #[test]
    fn any_fields_are_read_as_by_prost(fields in vec(any_message(), 0..6)) {
        agree(&fields.concat());
    }

    #[test]
    fn any_bytes_are_read_as_by_prost(message in vec(any::<u8>(), 0..64)) {
        agree(&message);
    }
}

/// The fields of a descriptor in several parts, each with what the others lack or repeat.
#[test]
fn parts_of_a_nested_message_are_merged() {
    let limit = |fields: &[u8]| [&[0x12, fields.len() as u8], fields].concat();
    let descriptor = [
        limit(&[0x08, 5, 0x10, 1]),
        limit(&[0x1a, 2, 0x08, 7]),
        limit(&[0x08, 9, 0x1a, 0]),
        vec![0x1a, 2, 0x08, 3, 0x1a, 0, 0x20, 1],
        // Fields of later versions.
        vec![0x28, 1, 0x32, 1, 9, 0x3d, 1, 2, 3, 4, 0x41, 1, 2, 3, 4, 5, 6, 7, 8],
    ]
    .concat();
    let message = [&[0x12, descriptor.len() as u8], &*descriptor].concat();
    assert!(agree(&message));
    let read = plain(&message).unwrap();
    let descriptor = &read.descriptors[0];
    let limit = Override {
        requests_per_unit: 9,
        unit: Some(crate::domain::Unit::Second),
        unit_multiplier: 7,
    };
    assert_eq!((descriptor.hits, descriptor.limit), (Hits::Refund(3), Some(limit)));
}

#[test]
fn groups_are_left_to_prost() {
    let deep = |levels: usize| [vec![0x2b; levels], vec![0x2c; levels]].concat();
    for (levels, valid) in [(1, true), (90, true), (120, false)] {
        assert_eq!(agree(&deep(levels)), valid, "{levels}");
    }
    assert!(!agree(&[0x2b, 0x34]), "the end of another group");
    assert!(!agree(&[0x2b]), "a group without an end");
}

#[test]
fn fields_that_are_invalid_are_refused_in_the_words_of_prost() {
    for message in [
        &[0x08, 1][..],
        &[0x0a, 5, 1],
        &[0x12, 2, 0x0a],
        &[0x12, 2, 0x20, 0x80],
        &[0x18],
        &[0x00, 1],
        &[0x0e, 1],
        &[0xff; 12],
        &[0xf8, 0xff, 0xff, 0xff, 0x7f, 1],
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        &[0x2d, 1, 2, 3],
        &[0x29, 1, 2, 3, 4, 5, 6, 7],
    ] {
        assert!(!agree(message), "{message:?}");
    }
}
