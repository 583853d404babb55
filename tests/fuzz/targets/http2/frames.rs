//! Frames of a client from bytes that choose: mostly what a client may send, and what it must not.

use tollgate::http2::frame::{
    ErrorCode, FrameHeader, PREFACE, flag, kind, write_goaway, write_number, write_ping,
    write_settings,
};

/// The blocks that break no rule.
const SOUND: usize = 7;
/// The most frames of a connection.
const MOST: usize = 48;

/// Blocks of headers. The first seven of them have no name that h2 takes for a fault of the whole
/// connection.
const BLOCKS: [&[u8]; 14] = [
    b"\x83\x86\x84\x41\x01a",
    b"\x83\x86\x44\x02/x\x01\x01a",
    b"\x82\x87\x84\x01\x01b\x40\x02te\x08trailers",
    b"\x83\x86\x84\x0f\x0d\x015",
    b"\x83\x86\x84\x40\x01x\x01y",
    b"\x3f\xe1\x1f\x83\x86\x84",
    b"\x20\x83\x86\x84",
    b"\x83\x86\x84\xbe\xbf",
    b"\x83\x86\x84\x40\x01A\x01b",
    b"\x83\x86\x84\x40\x0aconnection\x01c",
    b"\x83\x86\x84\x00\x02te\x04gzip",
    b"\x83\x86",
    b"\x83\x83\x86\x84",
    b"\x83\x86\x84\x40\x01x\x01y\x82",
];

const TRAILERS: &[u8] = b"\x40\x05trail\x02er";

/// Increments of windows, and values of settings.
const WINDOWS: [u32; 6] = [1, 0, 0x7fff_ffff, 0x7fff_0000, 70_000, 0x8000_0001];
const VALUES: [u32; 8] = [0, 1, 2, 65_535, 16_384, 16_777_215, 0x7fff_ffff, u32::MAX];

struct Steps<'a> {
    left: &'a [u8],
    /// The blocks that are sent.
    blocks: &'static [&'static [u8]],
    /// The streams that the client has reset.
    given_up: Vec<u32>,
}

impl<'a> Steps<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.left.split_first() else { return 0 };
        self.left = rest;
        *first
    }

    fn block(&mut self) -> &'static [u8] {
        self.blocks[usize::from(self.byte()) % self.blocks.len()]
    }

    fn one_of(&mut self, values: &[u32]) -> u32 {
        values[usize::from(self.byte()) % values.len()]
    }

    /// A stream that is open, as a rule. One that the client has given up depends on the time, and
    /// h2 takes some frames on streams of even ids, which are the server's.
    fn known(&mut self, last: u32) -> u32 {
        let stream = last.saturating_sub(2 * u32::from(self.byte() % 3));
        if self.given_up.contains(&stream) { 0 } else { stream }
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte() % 32).min(self.left.len());
        let (bytes, rest) = self.left.split_at(length);
        self.left = rest;
        bytes
    }
}

/// The bytes that a client sends, and the streams that it gives up. `sound`: its requests break no
/// rule, but perhaps all else.
pub(super) fn of(steps: &[u8], sound: bool) -> (Vec<u8>, Vec<u32>) {
    let mut out = PREFACE.to_vec();
    write_settings(&mut out, &[]);
    frame(&mut out, (kind::SETTINGS, flag::ACK, 0), &[]);
    let blocks = if sound { &BLOCKS[..SOUND] } else { &BLOCKS[..] };
    let (mut steps, mut last) = (Steps { left: steps, blocks, given_up: Vec::new() }, 0_u32);
    for _ in 0..MOST {
        if steps.left.is_empty() {
            break;
        }
        step(&mut steps, &mut last, &mut out);
    }
    // So that no block of headers is left without an end: h2 looks at whole blocks only.
    write_ping(&mut out, 0, [1; 8]);
    (out, steps.given_up)
}

fn frame(out: &mut Vec<u8>, (kind, flags, stream): (u8, u8, u32), payload: &[u8]) {
    FrameHeader::new(payload.len(), kind, flags, stream).write(out);
    out.extend_from_slice(payload);
}

fn step(steps: &mut Steps<'_>, last: &mut u32, out: &mut Vec<u8>) {
    let choice = steps.byte();
    match choice % 16 {
        0..=3 => {
            *last = if *last == 0 { 1 } else { *last + 2 };
            let flags = flag::END_HEADERS | (steps.byte() & flag::END_STREAM);
            let block = steps.block();
            frame(out, (kind::HEADERS, flags, *last), block);
        }
        4..=6 => {
            let stream = steps.known(*last);
            let flags = steps.byte() & (flag::END_STREAM | flag::PADDED);
            frame(out, (kind::DATA, flags, stream), steps.bytes());
        }
        7 => {
            let stream = steps.known(*last);
            write_number(out, kind::RST_STREAM, stream, steps.byte().into());
            steps.given_up.push(stream);
        }
        8 => {
            let stream = if choice & 0x10 == 0 { 0 } else { steps.known(*last) };
            write_number(out, kind::WINDOW_UPDATE, stream, steps.one_of(&WINDOWS));
        }
        9 => {
            let value = steps.one_of(&VALUES);
            write_settings(out, &[(u16::from(steps.byte() % 8), value)]);
        }
        10 => write_ping(out, steps.byte() & flag::ACK, [choice; 8]),
        11 => two_frames(steps, last, out),
        12 => {
            let stream = steps.known(*last);
            let flags = flag::END_HEADERS | (steps.byte() & flag::END_STREAM);
            frame(out, (kind::HEADERS, flags, stream), TRAILERS);
        }
        13 if steps.blocks.len() > SOUND => any_headers(steps, last, out),
        14 if choice & 0x10 == 0 => {
            write_goaway(out, *last, ErrorCode(steps.byte().into()));
            // Once all streams are closed, h2 reads nothing that comes after it.
            steps.left = &[];
        }
        14 => frame(out, (kind::PRIORITY, 0, steps.known(*last)), &[0, 0, 0, steps.byte(), 1]),
        _ => any_frame(steps, *last, out),
    }
}

/// A block of any bytes.
fn any_headers(steps: &mut Steps<'_>, last: &mut u32, out: &mut Vec<u8>) {
    *last += if *last == 0 { 1 } else { 2 * u32::from(steps.byte() % 2) };
    // h2 takes such a stream that was given up for one whose trailers are malformed.
    *last += if steps.given_up.contains(last) { 2 } else { 0 };
    // h2 looks into a block before it has the end of it.
    let (mut flags, payload) = (steps.byte() | flag::END_HEADERS, steps.bytes());
    if depends_on_itself(flags, *last, payload) {
        // h2 resets such a stream without a look at its block, which may be a fault.
        flags &= !flag::PRIORITY;
    }
    frame(out, (kind::HEADERS, flags, *last), payload);
}

/// A frame of any kind but DATA and HEADERS.
fn any_frame(steps: &mut Steps<'_>, last: u32, out: &mut Vec<u8>) {
    let (kind, flags) = (steps.byte().max(kind::PRIORITY), steps.byte());
    let stream = steps.known(last);
    if kind == kind::RST_STREAM {
        steps.given_up.push(stream);
    }
    match kind {
        // h2 looks into the block of a promise before it refuses any, and ignores one on a
        // stream that it has reset.
        kind::PUSH_PROMISE => {
            let header = (kind, flag::END_HEADERS, last + 2);
            frame(out, header, b"\0\0\0\x02\x82\x86\x84");
        }
        kind::SETTINGS => {
            let payload = settings(steps.bytes());
            // h2 takes an acknowledgement of nothing for a fault.
            let flags = if payload.is_empty() { 0 } else { flags };
            frame(out, (kind, flags, stream), &payload);
        }
        _ => frame(out, (kind, flags, stream), steps.bytes()),
    }
    if kind == kind::GOAWAY {
        steps.left = &[];
    }
}

/// The payload of SETTINGS, without what h2 has its own ideas of: the setting of RFC 8441, and
/// equal ones, of which it looks at the last only.
fn settings(payload: &[u8]) -> Vec<u8> {
    let (mut payload, mut taken) = (payload.to_vec(), vec![[0, 8]]);
    for [high, low, ..] in payload.as_chunks_mut::<6>().0 {
        if taken.contains(&[*high, *low]) {
            *high = 0xff;
        }
        taken.push([*high, *low]);
    }
    payload
}

/// True if the payload of HEADERS says that the stream depends on itself.
fn depends_on_itself(flags: u8, stream: u32, payload: &[u8]) -> bool {
    let padding = usize::from(flags & flag::PADDED != 0);
    let named = payload.get(padding..padding + 4).and_then(|bytes| bytes.try_into().ok());
    let named = named.map(|bytes| u32::from_be_bytes(bytes) & 0x7fff_ffff);
    flags & flag::PRIORITY != 0 && named == Some(stream)
}

/// A block in two frames, and perhaps something between them.
fn two_frames(steps: &mut Steps<'_>, last: &mut u32, out: &mut Vec<u8>) {
    *last = if *last == 0 { 1 } else { *last + 2 };
    let block = steps.block();
    let (first, second) = block.split_at(usize::from(steps.byte()) % block.len());
    frame(out, (kind::HEADERS, steps.byte() & flag::END_STREAM, *last), first);
    if steps.byte() == 0 {
        write_ping(out, 0, [0; 8]);
    }
    frame(out, (kind::CONTINUATION, flag::END_HEADERS, *last), second);
}
