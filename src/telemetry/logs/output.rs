//! A place that lines are written to, by one writer.

use std::io::Write;

/// A place of lines.
pub(super) trait Output: Send + 'static {
    /// Writes a whole line; false: it is lost.
    fn write(&mut self, line: &[u8]) -> bool;

    /// Opens the place again, if it has a name.
    fn reopen(&mut self) {}
}

/// A stream without a name, such as standard error.
#[derive(Debug)]
pub(super) struct Stream<W>(pub(super) W);

impl<W: Write + Send + 'static> Output for Stream<W> {
    fn write(&mut self, line: &[u8]) -> bool {
        self.0.write_all(line).is_ok()
    }
}
