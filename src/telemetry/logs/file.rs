//! A log file that is rotated by size and age: `FILE`, then `FILE.1` up to `FILE.N`.
//!
//! No crate does both with a kept count, and reopens a file that logrotate has moved. A file that
//! cannot be written costs lines, one message on standard error for each outage, and no more: each
//! further line is an attempt.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::output::Output;

/// Readable by the group: audit lines have names of operators and clients.
const MODE: u32 = 0o640;

/// The wait after a rotation that failed. The file goes on meanwhile.
const RETRY_ROTATION: Duration = Duration::from_mins(1);

/// The conditions of a rotation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotation {
    /// Bytes; 0: not by size.
    pub(super) max_bytes: u64,
    pub(super) max_age: Option<Duration>,
    /// The number of rotated files.
    pub(super) keep: u32,
}

/// A log file.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    /// None: it could not be opened again.
    open: Option<Open>,
    /// The lines lost in this outage; none: there is none.
    lost: Option<u64>,
    /// No rotation before this.
    rotates_from: Option<Instant>,
    /// Writes a message about the file itself.
    tell: fn(&str),
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
    born: Instant,
    /// A line was written in part.
    torn: bool,
    /// It can be renamed: `/dev/stdout` must not be.
    regular: bool,
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
        let metadata = file.metadata()?;
        // Not every file system has the time at which a file was made.
        let made = metadata.created().or_else(|_| metadata.modified());
        let age = made.ok().and_then(|made| made.elapsed().ok()).unwrap_or_default();
        let now = Instant::now();
        let born = now.checked_sub(age).unwrap_or(now);
        let regular = metadata.is_file();
        Ok(Self { file, bytes: metadata.len(), born, torn: false, regular })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = rest.split_at_checked(written).map_or(&[], |(_, rest)| rest);
                    self.bytes += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.torn = rest.len() < line.len();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl LogFile {
    /// Opens `path`. `tell` writes a message about the file where an operator finds it.
    ///
    /// # Errors
    /// Fails if it cannot be opened.
    pub(super) fn open(path: &Path, rotation: Rotation, tell: fn(&str)) -> io::Result<Self> {
        let open = Some(Open::at(path)?);
        let path = path.to_owned();
        Ok(Self { path, rotation, open, lost: None, rotates_from: None, tell })
    }

    fn try_write(&mut self, line: &[u8]) -> io::Result<()> {
        self.rotate_if_due(line.len() as u64);
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(Open::at(&self.path)?),
        };
        open.write(line)
    }

    fn rotate_if_due(&mut self, more: u64) {
        let Some(open) = &self.open else { return };
        let Rotation { max_bytes, max_age, .. } = self.rotation;
        let large = max_bytes > 0 && open.bytes + more > max_bytes;
        let old = max_age.is_some_and(|age| open.born.elapsed() >= age);
        let waits = self.rotates_from.is_some_and(|from| Instant::now() < from);
        if !open.regular || open.bytes == 0 || waits || !(large || old) {
            return;
        }
        self.rotates_from = None;
        if let Err(error) = self.rotate() {
            self.rotates_from = Some(Instant::now() + RETRY_ROTATION);
            let path = self.path.display();
            (self.tell)(&format!("the log file {path} cannot be rotated and grows: {error}"));
        }
    }

    /// Moves each file to the next number, and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        };
        for number in (1..self.rotation.keep).rev() {
            there(fs::rename(numbered(number), numbered(number + 1)))?;
        }
        if self.rotation.keep > 0 {
            there(fs::rename(&self.path, numbered(1)))?;
        } else {
            there(fs::remove_file(&self.path))?;
        }
        // The lines go on to the moved file if there can be no new one.
        self.open = Some(Open::at(&self.path)?);
        Ok(())
    }
}

/// A file that is not there needs no move.
fn there(moved: io::Result<()>) -> io::Result<()> {
    match moved {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Output for LogFile {
    fn write(&mut self, line: &[u8]) -> bool {
        let written = self.try_write(line);
        match (&written, &mut self.lost) {
            (Ok(()), lost) => {
                if let Some(lost) = lost.take() {
                    let path = self.path.display();
                    let text =
                        format!("the log file {path} is written again; {lost} lines are lost");
                    (self.tell)(&text);
                }
            }
            (Err(_), Some(lost)) => *lost += 1,
            (Err(error), none) => {
                *none = Some(1);
                let path = self.path.display();
                (self.tell)(&format!("the log file {path} cannot be written: {error}"));
            }
        }
        written.is_ok()
    }

    /// Opens the path again, which names another file after logrotate has moved this one.
    fn reopen(&mut self) {
        match Open::at(&self.path) {
            Ok(open) => self.open = Some(open),
            Err(error) => {
                let path = self.path.display();
                (self.tell)(&format!("the log file {path} cannot be opened again: {error}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tempfile::TempDir;

    use super::*;

    fn file(dir: &TempDir, rotation: Rotation, tell: fn(&str)) -> LogFile {
        LogFile::open(&dir.path().join("log"), rotation, tell).unwrap()
    }

    fn texts(dir: &TempDir) -> Vec<(String, String)> {
        let mut texts: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        texts.sort();
        texts
    }

    fn named(texts: &[(&str, &str)]) -> Vec<(String, String)> {
        texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    const BY_SIZE: Rotation = Rotation { max_bytes: 10, max_age: None, keep: 2 };

    #[test]
    fn file_is_rotated_by_size_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = file(&dir, BY_SIZE, |_| {});
        for line in
            ["one 1\n", "two\n", "three\n", "four\n", "five\n", "longer than a file\n", "7\n"]
        {
            assert!(log.write(line.as_bytes()));
        }
        let expected =
            [("log", "7\n"), ("log.1", "longer than a file\n"), ("log.2", "four\nfive\n")];
        assert_eq!(texts(&dir), named(&expected));
        // A restart goes on where the file ends.
        drop(log);
        let mut log = file(&dir, BY_SIZE, |_| {});
        assert!(log.write(b"ninebyte\n"));
        assert_eq!(texts(&dir)[0].1, "ninebyte\n");
        let mut log = file(&dir, Rotation { keep: 0, ..BY_SIZE }, |_| {});
        assert!(log.write(b"no room\n"));
        assert_eq!(texts(&dir)[..2], named(&[("log", "no room\n"), ("log.1", "7\n")]));
    }

    #[test]
    fn file_is_rotated_by_age() {
        let dir = tempfile::tempdir().unwrap();
        let by_age = |age| Rotation { max_bytes: 0, max_age: Some(age), keep: 1 };
        let mut log = file(&dir, by_age(Duration::from_hours(1)), |_| {});
        assert!(log.write(b"first\n") && log.write(b"second\n"));
        log.rotation = by_age(Duration::ZERO);
        assert!(log.write(b"third\n"));
        assert_eq!(texts(&dir), named(&[("log", "third\n"), ("log.1", "first\nsecond\n")]));
    }

    #[test]
    fn file_that_logrotate_moved_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = file(&dir, BY_SIZE, |_| {});
        assert!(log.write(b"one\n"));
        fs::rename(dir.path().join("log"), dir.path().join("moved")).unwrap();
        assert!(log.write(b"two\n"));
        log.reopen();
        assert!(log.write(b"three\n"));
        assert_eq!(texts(&dir), named(&[("log", "three\n"), ("moved", "one\ntwo\n")]));
    }

    #[test]
    fn outage_is_told_once_and_ends_by_itself() {
        static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = file(&dir, BY_SIZE, |text| TOLD.lock().push(text.to_owned()));
        // Every write to it fails as on a full disk.
        log.open.as_mut().unwrap().file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert!(!log.write(b"one\n") && !log.write(b"two\n"));
        log.open = None;
        assert!(log.write(b"three\n"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        let told = TOLD.lock().clone();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("cannot be written: No space left"), "{told:?}");
        assert!(told[1].contains("is written again; 2 lines are lost"), "{told:?}");
    }
}
