//! Policy files as bytes: which files a path means, and reading them.
//!
//! Nothing here knows what is in them. Entries whose name begins with a dot are skipped and
//! symbolic links are followed, so a mounted Kubernetes ConfigMap is read once, through its links.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::draft::Draft;
use super::fault::Fault;

/// The largest policy file, 16 MiB.
const LARGEST: u64 = 16 << 20;

/// One policy file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Source {
    /// Its name in faults, usually its path.
    pub name: Arc<str>,
    /// Its content, hopefully UTF-8.
    pub text: Vec<u8>,
    /// What other implementations of this format accept is a warning rather than a fault.
    pub lenient: bool,
    /// The tree that takes the place of the text; `text` only tells it from others then.
    pub(super) draft: Option<Arc<Draft>>,
}

impl Source {
    /// A file of this name and content.
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), text: text.into(), lenient: false, draft: None }
    }

    /// A policy of this name that came as a tree. `identity` differs where the trees do.
    pub fn drafted(name: impl Into<Arc<str>>, draft: Draft, identity: Vec<u8>) -> Self {
        Self { draft: Some(Arc::new(draft)), ..Self::new(name, identity) }.lenient()
    }

    /// The same, read as other implementations of this format would: what they accept is a warning
    /// rather than a fault.
    #[must_use]
    pub fn lenient(self) -> Self {
        Self { lenient: true, ..self }
    }

    /// A file of this name and the content of `from`, at most 16 MiB.
    ///
    /// # Errors
    /// Those of reading, and a larger content.
    pub fn read(name: impl Into<Arc<str>>, from: impl Read) -> io::Result<Self> {
        let mut text = Vec::new();
        from.take(LARGEST + 1).read_to_end(&mut text)?;
        if text.len() as u64 > LARGEST {
            return Err(io::Error::other("larger than 16 MiB"));
        }
        Ok(Self::new(name, text))
    }
}

/// The files at a path.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Policy files, sorted within each directory.
    pub(crate) files: Vec<PathBuf>,
    /// The directories they were looked for in.
    pub(crate) directories: Vec<PathBuf>,
    /// The places that could not be read.
    pub(crate) faults: Vec<Fault>,
}

impl Listing {
    /// The file at `path`, or every `*.yaml` and `*.yml` in and below that directory; every file
    /// there if `every`.
    pub(crate) fn of(path: &Path, every: bool) -> Self {
        let mut listing = Self::default();
        if path.is_dir() {
            listing.descend(path, every, &mut Vec::new());
        } else {
            listing.files.push(path.to_owned());
        }
        listing
    }

    /// `above`: the directories that lead here without their links, which a loop of links would
    /// meet again.
    fn descend(&mut self, directory: &Path, every: bool, above: &mut Vec<PathBuf>) {
        let (real, names) = match (fs::canonicalize(directory), names(directory)) {
            (Ok(real), Ok(names)) => (real, names),
            (Err(error), _) | (_, Err(error)) => {
                return self.faults.push(unreadable(directory, &error));
            }
        };
        if above.contains(&real) {
            return;
        }
        self.directories.push(directory.to_owned());
        above.push(real);
        for path in names {
            if path.is_dir() {
                self.descend(&path, every, above);
            } else if every || is_policy(&path) {
                self.files.push(path);
            }
        }
        above.pop();
    }

    /// Reads the files; those that cannot be read are faults.
    pub(crate) fn read(self) -> (Vec<Source>, Vec<Fault>) {
        let Self { files, mut faults, .. } = self;
        let mut sources = Vec::with_capacity(files.len());
        for path in files {
            match read(&path) {
                Ok(source) => sources.push(source),
                Err(error) => faults.push(unreadable(&path, &error)),
            }
        }
        (sources, faults)
    }
}

/// The entries of a directory, sorted, without those that begin with a dot.
fn names(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    let visible = |name: &std::ffi::OsStr| !name.as_encoded_bytes().starts_with(b".");
    let shown = entries.iter().filter(|entry| visible(&entry.file_name()));
    let mut paths: Vec<_> = shown.map(fs::DirEntry::path).collect();
    paths.sort();
    Ok(paths)
}

fn is_policy(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ["yaml", "yml"].iter().any(|e| ext.eq_ignore_ascii_case(e)))
}

/// Reads the file at `path` as its source.
fn read(path: &Path) -> io::Result<Source> {
    // Links followed. To open a named pipe would wait for its writer, forever if there is none.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Source::read(path.to_string_lossy(), File::open(path)?)
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    Fault::of_file(path.to_string_lossy().into(), format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn relative(listing: &Listing, root: &Path) -> Vec<String> {
        let strip = |path: &PathBuf| path.strip_prefix(root).unwrap().display().to_string();
        listing.files.iter().map(strip).collect()
    }

    #[test]
    fn directory_means_its_yaml_files_sorted_and_without_dot_entries() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sub/.hidden")).unwrap();
        for name in ["b.yaml", "a.yml", "c.txt", ".d.yaml", "sub/e.YAML", "sub/.hidden/f.yaml"] {
            fs::write(root.path().join(name), "x").unwrap();
        }
        let listing = Listing::of(root.path(), false);
        assert_eq!(relative(&listing, root.path()), ["a.yml", "b.yaml", "sub/e.YAML"]);
        let every = relative(&Listing::of(root.path(), true), root.path());
        assert_eq!(every, ["a.yml", "b.yaml", "c.txt", "sub/e.YAML"]);
        assert_eq!(listing.directories.len(), 2);
        assert!(listing.faults.is_empty());
    }

    #[test]
    fn mounted_config_map_is_read_once() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("..2026")).unwrap();
        fs::write(root.path().join("..2026/a.yaml"), "content").unwrap();
        symlink("..2026", root.path().join("..data")).unwrap();
        symlink("..data/a.yaml", root.path().join("a.yaml")).unwrap();
        let (sources, faults) = Listing::of(root.path(), false).read();
        assert_eq!((sources.len(), faults.len()), (1, 0));
        assert_eq!(sources[0].text, b"content");
    }

    #[test]
    fn named_pipe_is_a_fault_and_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a.yaml"), "content").unwrap();
        let pipe = root.path().join("b.yaml");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        symlink(&pipe, root.path().join("c.yaml")).unwrap();
        let path = root.path().to_owned();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(Listing::of(&path, false).read()));
        let read = receiver.recv_timeout(std::time::Duration::from_secs(10));
        let (sources, faults) = read.expect("it does not wait");
        assert_eq!((sources.len(), faults.len()), (1, 2));
        let told = faults[0].to_string();
        assert!(told.ends_with("b.yaml: cannot be read: not a regular file"), "{told}");
    }

    #[test]
    fn loop_of_links_ends() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a.yaml"), "").unwrap();
        symlink(root.path(), root.path().join("again")).unwrap();
        assert_eq!(relative(&Listing::of(root.path(), false), root.path()), ["a.yaml"]);
    }

    #[test]
    fn missing_path_and_dangling_link_are_faults() {
        let root = tempfile::tempdir().unwrap();
        symlink("nowhere", root.path().join("a.yaml")).unwrap();
        for path in [root.path().to_owned(), root.path().join("missing")] {
            let (sources, faults) = Listing::of(&path, false).read();
            assert_eq!((sources.len(), faults.len()), (0, 1));
            assert!(faults[0].to_string().contains("cannot be read: "), "{}", faults[0]);
        }
    }
}
