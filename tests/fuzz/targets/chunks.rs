//! A stream of bytes, cut into chunks.

use bytes::Bytes;

/// The longest chunk of a stream whose cuts are chosen by a seed.
const MAX_CHUNK_BYTES: u64 = 16;

/// `stream` as a whole, byte by byte, and in chunks of lengths that `seed` chooses.
pub fn ways(stream: &[u8], seed: u8) -> [Vec<Bytes>; 3] {
    let bytes = stream.chunks(1).map(Bytes::copy_from_slice).collect();
    [vec![Bytes::copy_from_slice(stream)], bytes, cut(stream, seed)]
}

/// Chunks of 0 to 16 bytes. Empty ones are legal wherever a stream comes in chunks.
fn cut(mut stream: &[u8], seed: u8) -> Vec<Bytes> {
    let mut random = u64::from(seed);
    let mut chunks = Vec::new();
    while !stream.is_empty() {
        // MMIX by Knuth; the high bits are the good ones.
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length = (random >> 33) % (MAX_CHUNK_BYTES + 1);
        let (chunk, rest) = stream.split_at(stream.len().min(length as usize));
        chunks.push(Bytes::copy_from_slice(chunk));
        stream = rest;
    }
    chunks
}
