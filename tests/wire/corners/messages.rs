//! Messages: none, two, halves, in pieces, with padding; what clients say after them.

use super::{Call, Corner, Differs, corner, malformed, message, message_of, missized};
use crate::support::grpc::SHOULD_RATE_LIMIT;

const RESET: u8 = 3;
const PRIORITY: u8 = 2;
const WINDOW_UPDATE: u8 = 8;
/// A type of frame that no standard knows.
const UNKNOWN: u8 = 0xfa;

const OF_CONNECTION: &[Differs] =
    &[("lean", "goaway FRAME_SIZE_ERROR", "RFC 9113, sections 6.4 and 6.9")];
const OF_STREAM: &[Differs] = &[("lean", "reset FRAME_SIZE_ERROR", "RFC 9113, section 6.3")];

fn none() -> Call {
    Call::of(SHOULD_RATE_LIMIT)
}

pub fn corners() -> Vec<Corner> {
    [prefixes(), pieces(), ends(), bad_frames(), others()].into_iter().flatten().collect()
}

fn prefixes() -> Vec<Corner> {
    let good = message();
    let flagged = |flag: u8| [&[flag], &good[1..]].concat();
    let longer = |length: u32| [&[0][..], &length.to_be_bytes(), &good[5..]].concat();
    let bytes = good.len() as u32 - 5;
    vec![
        corner("a good call", Call::good(), "200 grpc 0 + message"),
        corner("no DATA", none(), "200 grpc 13"),
        corner("an empty DATA", none().data(&[]), "200 grpc 13"),
        corner("half a prefix", none().data(&good[..3]), "200 grpc 13"),
        corner("only a prefix", none().data(&good[..5]), "200 grpc 13"),
        corner("half a message", none().data(&good[..9]), "200 grpc 13"),
        corner("the prefix of an empty message", none().data(&[0; 5]), "200 grpc 3"),
        corner("two messages in a DATA", none().data(&[&good[..], &good].concat()), "200 grpc 13"),
        corner("two messages", none().data(&good).data(&good), "200 grpc 13"),
        corner("a message and a byte", none().data(&good).data(b"x"), "200 grpc 13"),
        corner("a byte more than the prefix says", none().data(&longer(bytes - 1)), "200 grpc 13"),
        corner("a byte less than the prefix says", none().data(&longer(bytes + 1)), "200 grpc 13"),
        corner("a length beyond the bound", none().data(&longer(65_537)), "200 grpc 0 + message"),
        corner(
            "a length beyond the bound, and no end",
            none().data(&longer(65_537)).open(),
            "200 grpc 0 + message",
        ),
        corner("the longest length", none().data(&longer(u32::MAX)), "200 grpc 0 + message"),
        corner("a compressed flag", none().data(&flagged(1)), "200 grpc 13"),
        corner("a flag of 2", none().data(&flagged(2)), "200 grpc 13"),
        corner("a flag of 255", none().data(&flagged(255)), "200 grpc 13"),
        corner("gzip", none().with("grpc-encoding", "gzip").data(&flagged(1)), "200 grpc 12"),
        corner("gzip, not used", Call::good().with("grpc-encoding", "gzip"), "200 grpc 12"),
        corner("identity", Call::good().with("grpc-encoding", "identity"), "200 grpc 0 + message"),
        corner("no protobuf", none().data(&[0, 0, 0, 0, 4, 255, 255, 255, 255]), "200 grpc 13"),
        corner("an empty descriptor list", none().data(&message_of(&[])), "200 grpc 3"),
    ]
}

fn pieces() -> Vec<Corner> {
    let good = message();
    let bytes = good.iter().fold(none(), |call, byte| call.data(&[*byte]));
    let gaps = good.iter().fold(none(), |call, byte| call.data(&[*byte]).data(&[]));
    let padded = good.iter().fold(none(), |call, byte| call.padded(&[*byte], 3));
    let large = message_of(&["x".repeat(4_000).as_str(); 6]);
    let largest = frame_of_bytes(65_536);
    vec![
        corner("bytes", bytes, "200 grpc 0 + message"),
        corner("bytes with empty DATA between", gaps, "200 grpc 0 + message"),
        corner("bytes with padding", padded, "200 grpc 0 + message"),
        corner("255 bytes of padding", none().padded(&good, 255), "200 grpc 0 + message"),
        corner("padding alone, at the end", Call::good().padded(&[], 100), "200 grpc 0 + message"),
        corner("an empty DATA at the end", Call::good().data(&[]), "200 grpc 0 + message"),
        corner("a frame and a half", none().data(&large), "200 grpc 0 + message"),
        corner("the largest message, of nonsense", none().data(&largest), "200 grpc 13"),
        corner("a byte beyond", none().data(&frame_of_bytes(65_537)), "200 grpc 0 + message"),
    ]
}

fn frame_of_bytes(length: u32) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend(length.to_be_bytes());
    frame.resize(5 + length as usize, 255);
    frame
}

fn ends() -> Vec<Corner> {
    let good = message();
    vec![
        corner("trailers", Call::good().trailers(&[("x", "y")]), "200 grpc 0 + message"),
        corner("empty trailers", Call::good().trailers(&[]), "200 grpc 0 + message"),
        corner("trailers, and no message", none().trailers(&[("x", "y")]), "200 grpc 13"),
        corner(
            "trailers without an end",
            Call::good().trailers(&[("x", "y")]).open(),
            "reset PROTOCOL_ERROR",
        ),
        Corner {
            differs: &[("lean", "reset PROTOCOL_ERROR", "RFC 9113, section 8.1: they have none")],
            ..corner(
                "trailers with :path",
                Call::good().trailers(&[(":path", "/")]),
                "200 grpc 0 + message",
            )
        },
        malformed("trailers with TE", Call::good().trailers(&[("TE", "x")])),
        corner(
            "trailers with connection",
            Call::good().trailers(&[("connection", "x")]),
            "reset PROTOCOL_ERROR",
        ),
        corner("no end", Call::good().open(), "200 grpc 4"),
        corner("no message and no end", none().open(), "200 grpc 4"),
        corner("half a message and no end", none().data(&good[..9]).open(), "200 grpc 4"),
        corner("a second reset", none().raw(RESET, 0, &[0, 0, 0, 8]).open(), "silence"),
    ]
}

fn bad_frames() -> Vec<Corner> {
    let open = || none().open();
    vec![
        corner("a window of 0", open().raw(WINDOW_UPDATE, 0, &[0; 4]), "goaway PROTOCOL_ERROR"),
        corner(
            "a window beyond 2^31",
            open().raw(WINDOW_UPDATE, 0, &[127, 255, 255, 255]),
            "reset FLOW_CONTROL_ERROR",
        ),
        missized("a short WINDOW_UPDATE", open().raw(WINDOW_UPDATE, 0, &[0; 3]), OF_CONNECTION),
        missized("a short RST_STREAM", open().raw(RESET, 0, &[0; 3]), OF_CONNECTION),
        missized("a short PRIORITY", open().raw(PRIORITY, 0, &[0; 4]), OF_STREAM),
        corner("padding beyond the frame", open().raw(0, 8, &[9, 0, 0]), "goaway PROTOCOL_ERROR"),
        corner(
            "a frame beyond the bound",
            open().raw(0, 1, &vec![0; 16_385]),
            "goaway FRAME_SIZE_ERROR",
        ),
        corner("SETTINGS on a stream", open().raw(4, 0, &[]), "goaway PROTOCOL_ERROR"),
        corner("PING on a stream", open().raw(6, 0, &[0; 8]), "goaway PROTOCOL_ERROR"),
        corner("GOAWAY on a stream", open().raw(7, 0, &[0; 8]), "goaway PROTOCOL_ERROR"),
        corner("PUSH_PROMISE", open().raw(5, 4, &[0, 0, 0, 2, 0x82]), "goaway PROTOCOL_ERROR"),
        corner("CONTINUATION of nothing", open().raw(9, 4, &[0x82]), "goaway PROTOCOL_ERROR"),
        corner(
            "a frame of no known kind",
            none().raw(UNKNOWN, 255, b"x").data(&message()),
            "200 grpc 0 + message",
        ),
        corner(
            "PRIORITY amid a call",
            none().raw(PRIORITY, 0, &[0; 5]).data(&message()),
            "200 grpc 0 + message",
        ),
    ]
}

fn others() -> Vec<Corner> {
    let check = || Call::of("/grpc.health.v1.Health/Check");
    let list = || Call::of("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
    // `service` is a string, field 1.
    let named = |name: &str| {
        [&[0, 0, 0, 0, name.len() as u8 + 2, 10, name.len() as u8], name.as_bytes()].concat()
    };
    vec![
        corner("health", check().data(&[0; 5]), "200 grpc 0 + message"),
        corner("health of nothing known", check().data(&named("nobody")), "200 grpc 5"),
        corner("health without a message", check(), "200 grpc 13"),
        corner("health twice", check().data(&[0; 10]), "200 grpc 0 + message"),
        corner("health, compressed", check().data(&[1, 0, 0, 0, 0]), "200 grpc 13"),
        corner("reflection without a message", list(), "200 grpc 0"),
        corner("reflection of nothing", list().data(&[0; 5]), "200 grpc 3"),
        // `list_services` is a string, field 7.
        corner("reflection", list().data(&[0, 0, 0, 0, 2, 58, 0]), "200 grpc 0 + message"),
        corner(
            "holds of nothing",
            Call::of("/tollgate.v1.HoldService/Settle").data(&[0; 5]),
            "200 grpc 3",
        ),
    ]
}
