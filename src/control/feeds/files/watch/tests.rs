//! The ways in which policies change on disk, each done for real and timed.

use std::io::Write as _;
use std::os::unix::fs::symlink;

use tokio::time::timeout;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    /// A directory with one policy in it.
    fn new() -> Self {
        let place = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("policies")).unwrap();
        fs::write(place.path("policies/a.yaml"), "domain: first\n").unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn watch(&self, name: &str) -> Watcher {
        Watcher::start(&self.path(name), false)
    }
}

async fn assert_noticed(watcher: &mut Watcher) {
    timeout(SECOND, watcher.changed()).await.expect("a change is noticed within a second");
    assert_silent(watcher).await;
}

/// Nothing is reported while two polls pass.
async fn assert_silent(watcher: &mut Watcher) {
    timeout(SECOND + QUIET, watcher.changed()).await.expect_err("nothing changed");
}

#[tokio::test]
async fn edit_in_place_is_noticed() {
    let place = Place::new();
    for path in ["policies", "policies/a.yaml"] {
        let mut watcher = place.watch(path);
        let file = place.path("policies/a.yaml");
        let mut file = fs::OpenOptions::new().append(true).open(file).unwrap();
        file.write_all(b"# more\n").unwrap();
        drop(file);
        assert_noticed(&mut watcher).await;
    }
}

#[tokio::test]
async fn rename_over_the_file_is_noticed() {
    let place = Place::new();
    for (path, text) in [("policies", "domain: second\n"), ("policies/a.yaml", "domain: third\n")] {
        let mut watcher = place.watch(path);
        fs::write(place.path("policies/.a.yaml.swp"), text).unwrap();
        fs::rename(place.path("policies/.a.yaml.swp"), place.path("policies/a.yaml")).unwrap();
        assert_noticed(&mut watcher).await;
    }
}

#[tokio::test]
async fn new_and_removed_files_are_noticed() {
    let place = Place::new();
    let mut watcher = place.watch("policies");
    fs::create_dir(place.path("policies/team")).unwrap();
    fs::write(place.path("policies/team/b.yaml"), "domain: b\n").unwrap();
    assert_noticed(&mut watcher).await;
    fs::write(place.path("policies/team/b.yaml"), "domain: c\n").unwrap();
    assert_noticed(&mut watcher).await;
    fs::remove_file(place.path("policies/team/b.yaml")).unwrap();
    assert_noticed(&mut watcher).await;
}

#[tokio::test]
async fn config_map_swap_is_noticed_each_time() {
    let place = Place::new();
    let publish = |version: &str| {
        let directory = place.path("mount").join(version);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("a.yaml"), format!("domain: {version}\n")).unwrap();
        symlink(version, place.path("mount/..data_tmp")).unwrap();
        fs::rename(place.path("mount/..data_tmp"), place.path("mount/..data")).unwrap();
    };
    publish("..1");
    symlink("..data/a.yaml", place.path("mount/a.yaml")).unwrap();
    let (mut directory, mut file) = (place.watch("mount"), place.watch("mount/a.yaml"));
    for version in ["..2", "..3"] {
        publish(version);
        assert_noticed(&mut directory).await;
        assert_noticed(&mut file).await;
    }
}

#[tokio::test]
async fn replaced_directory_is_watched_again() {
    let place = Place::new();
    let mut watcher = place.watch("policies");
    fs::rename(place.path("policies"), place.path("old")).unwrap();
    assert_noticed(&mut watcher).await;
    fs::create_dir(place.path("policies")).unwrap();
    fs::write(place.path("policies/a.yaml"), "domain: second\n").unwrap();
    assert_noticed(&mut watcher).await;
    fs::write(place.path("policies/a.yaml"), "domain: third\n").unwrap();
    assert_noticed(&mut watcher).await;
    fs::write(place.path("old/a.yaml"), "domain: nobody reads this\n").unwrap();
    assert_silent(&mut watcher).await;
}

#[tokio::test]
async fn equal_contents_are_no_change() {
    let place = Place::new();
    let mut watcher = place.watch("policies");
    fs::write(place.path("policies/a.yaml"), "domain: first\n").unwrap();
    fs::write(place.path("policies/notes.txt"), "not a policy\n").unwrap();
    assert_silent(&mut watcher).await;
}

#[tokio::test]
async fn change_without_events_is_noticed_by_polling() {
    let place = Place::new();
    let mut watcher = place.watch("policies");
    watcher.armed.watch = None;
    fs::write(place.path("policies/a.yaml"), "domain: second\n").unwrap();
    assert_noticed(&mut watcher).await;
}

#[tokio::test]
async fn dropped_wait_forgets_nothing() {
    let place = Place::new();
    let mut watcher = place.watch("policies");
    fs::write(place.path("policies/a.yaml"), "domain: second\n").unwrap();
    for _ in 0..20 {
        timeout(QUIET / 20, watcher.changed()).await.expect_err("it has not settled yet");
    }
    assert_noticed(&mut watcher).await;
}

#[tokio::test]
async fn burst_of_writes_is_reported_once_settled() {
    let place = Place::new();
    let mut watcher = place.watch("policies");
    for i in 0..20 {
        fs::write(place.path("policies/a.yaml"), format!("domain: d{i}\n")).unwrap();
    }
    assert_noticed(&mut watcher).await;
}
