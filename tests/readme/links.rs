//! Links and headings: each target exists, in the repository and in the book.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::markdown::{Page, page, pages, root};

const SUMMARY: &str = "docs/SUMMARY.md";

#[test]
fn links_lead_to_a_file_and_a_heading() {
    let mut found = 0;
    for from in pages() {
        for link in from.links().iter().filter(|link| is_local(link)) {
            found += 1;
            let (target, anchor) = target(&from, link);
            assert!(root().join(&target).exists(), "{}: no file {link}", from.path);
            if let Some(anchor) = anchor {
                let known = page(&target).anchors().contains(&anchor);
                assert!(known, "{}: no heading {link}", from.path);
            }
        }
    }
    assert!(found > 0);
}

/// The book holds docs/ alone, so a link out of it leads nowhere there.
#[test]
fn links_of_the_book_stay_in_the_book() {
    for from in pages().iter().filter(|page| page.path.starts_with("docs/")) {
        for link in from.links().iter().filter(|link| is_local(link)) {
            let (target, _) = target(from, link);
            assert!(target.starts_with("docs"), "{}: {link} leaves the book", from.path);
        }
    }
}

#[test]
fn summary_lists_every_page_once() {
    let summary = page(SUMMARY);
    let listed = summary.links().into_iter().filter(|link| !link.is_empty());
    let mut listed: Vec<_> =
        listed.map(|link| target(&summary, &link).0.to_str().unwrap().to_owned()).collect();
    listed.sort();
    let docs = pages().into_iter().map(|page| page.path);
    let docs: Vec<_> = docs.filter(|path| path.starts_with("docs/") && path != SUMMARY).collect();
    assert_eq!(listed, docs);
}

#[test]
fn headings_of_a_page_differ() {
    for page in pages() {
        let anchors = page.anchors();
        let distinct: BTreeSet<_> = anchors.iter().collect();
        assert_eq!(distinct.len(), anchors.len(), "{}: {anchors:?}", page.path);
    }
}

/// Links to a page, a heading or a file. An empty one is a chapter of the summary that is not written yet.
fn is_local(link: &str) -> bool {
    !link.is_empty() && !link.starts_with("https://")
}

/// The path from the root that a link of the page leads to, and its anchor.
fn target(from: &Page, link: &str) -> (PathBuf, Option<String>) {
    let (path, anchor) = match link.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor.to_owned())),
        None => (link, None),
    };
    if path.is_empty() {
        return (PathBuf::from(&from.path), anchor);
    }
    let mut target = Path::new(&from.path).parent().unwrap().to_owned();
    for component in Path::new(path).components() {
        match component {
            Component::ParentDir => assert!(target.pop(), "{}: {link}", from.path),
            component => target.push(component),
        }
    }
    (target, anchor)
}
