//! The calls in flight of one session, by stream.
//!
//! A table without chains: a stream is in the slot of its number, and a number whose slot is taken
//! is skipped. HTTP/2 allows gaps in the numbers of streams.

/// A call in flight.
#[derive(Debug)]
pub(super) struct Call<T> {
    /// The number of its stream; 0: the slot is free.
    pub(super) stream: u32,
    pub(super) token: Option<T>,
    /// Bytes that the peer allows on the stream.
    pub(super) window: i64,
    /// The part of the request that no window allows yet.
    pub(super) unsent: Vec<u8>,
    /// The answer so far. The slot keeps its memory for the next call.
    pub(super) answer: Vec<u8>,
}

/// The table.
#[derive(Debug)]
pub(super) struct Calls<T> {
    slots: Vec<Call<T>>,
    /// The number for the next stream.
    next: u32,
    open: usize,
}

/// The greatest number of a stream.
const MAX_STREAM: u32 = (1 << 31) - 1;

impl<T> Calls<T> {
    /// A table for `most` calls at a time.
    pub(super) fn new(most: usize) -> Self {
        let free =
            || Call { stream: 0, token: None, window: 0, unsent: Vec::new(), answer: Vec::new() };
        // Twice as many slots, so that the next number mostly finds its slot free.
        let size = (2 * most).next_power_of_two();
        Self { slots: std::iter::repeat_with(free).take(size).collect(), next: 1, open: 0 }
    }

    pub(super) const fn open(&self) -> usize {
        self.open
    }

    /// Says if the numbers of streams have ended: the next call may find none.
    pub(super) fn are_at_end(&self) -> bool {
        self.next > MAX_STREAM - 2 * u32::try_from(self.slots.len()).unwrap_or(MAX_STREAM / 2)
    }

    /// Opens a stream. The caller has left a slot free and a number.
    pub(super) fn open_next(&mut self, token: T, window: i64) -> Option<&mut Call<T>> {
        for _ in 0..self.slots.len() {
            let stream = self.next;
            self.next += 2;
            let at = self.slot(stream);
            if self.slots.get(at).is_some_and(|call| call.stream == 0) {
                self.open += 1;
                let call = self.slots.get_mut(at)?;
                (call.stream, call.token, call.window) = (stream, Some(token), window);
                return Some(call);
            }
        }
        None
    }

    /// The call of a stream that is open.
    pub(super) fn get(&mut self, stream: u32) -> Option<&mut Call<T>> {
        let at = self.slot(stream);
        self.slots.get_mut(at).filter(|call| call.stream == stream && stream != 0)
    }

    /// Closes a stream: its token. The answer stays until the slot is used again.
    pub(super) fn close(&mut self, stream: u32) -> Option<(T, &mut Call<T>)> {
        let at = self.slot(stream);
        let call = self.slots.get_mut(at).filter(|call| call.stream == stream)?;
        let token = call.token.take()?;
        call.stream = 0;
        self.open -= 1;
        Some((token, call))
    }

    /// The streams that are open, in no order.
    pub(super) fn streams(&self) -> Vec<u32> {
        self.slots.iter().map(|call| call.stream).filter(|stream| *stream != 0).collect()
    }

    /// Changes the window of all streams.
    pub(super) fn widen(&mut self, by: i64) {
        self.slots.iter_mut().filter(|call| call.stream != 0).for_each(|call| call.window += by);
    }

    const fn slot(&self, stream: u32) -> usize {
        // The size is a power of two, and numbers are odd.
        (stream >> 1) as usize & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_a_taken_slot_is_skipped() {
        let mut calls = Calls::new(2);
        let mut open = |token| calls.open_next(token, 0).unwrap().stream;
        assert_eq!([open('a'), open('b')], [1, 3]);
        for _ in 0..3 {
            let stream = calls.open_next('c', 0).unwrap().stream;
            assert!(calls.close(stream).is_some());
        }
        // 5, 7, and 13: the slots of 9 and 11 are those of 1 and 3.
        assert_eq!(calls.open_next('d', 0).unwrap().stream, 15);
        assert_eq!(calls.close(1).unwrap().0, 'a');
        assert!(calls.close(1).is_none() && calls.get(9).is_none() && calls.get(0).is_none());
        assert_eq!((calls.streams(), calls.open()), (vec![3, 15], 2));
    }
}
