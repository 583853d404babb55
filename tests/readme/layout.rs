//! The layout of `src/`: ARCHITECTURE.md draws the arrows between its folders, and the `use` lines
//! and paths of the code have to follow them. No two files import each other, directly or in a circle.
//!
//! A re-export is no import: a path counts for the file that defines the item. Code of tests, the
//! inside of macros, and the binary are not read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, UseTree, Visibility};

use crate::markdown::{page, root};

/// Files whose type has methods in files of the folder below it, which therefore import each other.
const SPLIT_IMPLS: [&str; 5] = [
    "control/writer",
    "edge/admin/clients",
    "edge/admin/policies",
    "limiter/resolve",
    "store/redis/batch",
];

/// The path of a module below the crate, such as `["policy", "fault"]`.
type Module = Vec<String>;

/// What one file declares and refers to.
#[derive(Default)]
struct Source {
    /// Names that the file imports, with the full path of each.
    imports: BTreeMap<String, Vec<String>>,
    /// Imported names that other files may import from here.
    exports: BTreeSet<String>,
    /// Paths in the code, as written.
    paths: BTreeSet<Vec<String>>,
}

struct Reader<'a> {
    module: &'a Module,
    source: Source,
}

impl Reader<'_> {
    fn import(&mut self, prefix: &[String], tree: &UseTree, exported: bool) {
        let (name, rename) = match tree {
            UseTree::Path(path) => {
                let prefix = [prefix, &[path.ident.to_string()]].concat();
                return self.import(&prefix, &path.tree, exported);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.import(prefix, tree, exported));
            }
            UseTree::Glob(_) => ("*".to_owned(), "*".to_owned()),
            UseTree::Name(name) => (name.ident.to_string(), name.ident.to_string()),
            UseTree::Rename(name) => (name.ident.to_string(), name.rename.to_string()),
        };
        let (path, rename) = match name.as_str() {
            "self" => (prefix.to_vec(), prefix.last().cloned().unwrap_or_default()),
            _ => ([prefix, &[name]].concat(), rename),
        };
        let Some(path) = absolute(self.module, &path) else { return };
        if exported {
            self.source.exports.insert(rename.clone());
        }
        self.source.imports.insert(rename, path);
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes: &[Attribute] = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => &[],
        };
        let only_for_tests = |attribute: &Attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
        };
        if !attributes.iter().any(only_for_tests) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let exported = !matches!(item.vis, Visibility::Inherited);
        self.import(&[], &item.tree, exported);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.source.paths.insert(path.segments.iter().map(|s| s.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

/// The path from the crate on, of one that begins with `crate`, `self` or `super`.
fn absolute(module: &Module, path: &[String]) -> Option<Vec<String>> {
    let mut base = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => module.clone(),
        _ => return None,
    };
    for segment in path {
        match segment.as_str() {
            "crate" | "self" => {}
            "super" => drop(base.pop()),
            name => base.push(name.to_owned()),
        }
    }
    Some(base)
}

fn sources() -> BTreeMap<Module, Source> {
    let mut sources = BTreeMap::new();
    for file in rust_files() {
        let path = file.strip_prefix(root().join("src")).unwrap().with_extension("");
        let mut module: Module =
            path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let in_binary = matches!(module[0].as_str(), "bin" | "main" | "cli" | "load");
        if in_binary || module.iter().any(|part| part == "tests") {
            continue;
        }
        module.retain(|part| part != "mod" && part != "lib");
        let text = fs::read_to_string(&file).unwrap();
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let mut reader = Reader { module: &module, source: Source::default() };
        reader.visit_file(&parsed);
        let source = reader.source;
        sources.insert(module, source);
    }
    sources
}

/// Every source file of the library and the binaries.
pub fn rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    find(&root().join("src"), &mut files);
    files
}

fn find(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The file that defines what `path` leads to, beyond re-exports.
fn definition(sources: &BTreeMap<Module, Source>, path: &[String]) -> Option<Module> {
    let depth = (1..=path.len()).rev().find(|depth| sources.contains_key(&path[..*depth]))?;
    let (module, rest) = path.split_at(depth);
    let source = &sources[module];
    match rest.first() {
        Some(name) if source.exports.contains(name) => {
            let target = [&source.imports[name], &rest[1..]].concat();
            definition(sources, &target).or_else(|| Some(module.to_vec()))
        }
        _ => Some(module.to_vec()),
    }
}

/// Every file with the files that it refers to.
fn references(sources: &BTreeMap<Module, Source>) -> BTreeMap<&Module, BTreeSet<Module>> {
    let mut references = BTreeMap::new();
    for (module, source) in sources {
        let mut targets = BTreeSet::new();
        let imported = source.imports.iter().filter(|(name, path)| {
            // A re-export is for others, and an imported module counts where it is used.
            !source.exports.contains(*name) && !sources.contains_key(*path)
        });
        targets.extend(imported.filter_map(|(_, path)| definition(sources, path)));
        for path in &source.paths {
            let full = match (absolute(module, path), source.imports.get(&path[0])) {
                (Some(full), _) => full,
                (None, Some(imported)) => [imported, &path[1..]].concat(),
                (None, None) => [module, &path[..]].concat(),
            };
            if !sources.contains_key(&full) {
                targets.extend(definition(sources, &full));
            }
        }
        targets.remove(module);
        references.insert(module, targets);
    }
    references
}

/// The references that are part of a circle: their target leads back to where they start.
fn circles(references: &BTreeMap<&Module, BTreeSet<Module>>) -> Vec<String> {
    let edges = references.iter().flat_map(|(from, to)| to.iter().map(move |to| (*from, to)));
    edges
        .filter(|(from, to)| !is_split_impl(from, to) && !is_split_impl(to, from))
        .filter(|(from, to)| reaches(*to, *from, &|file| references[file].iter().collect()))
        .map(|(from, to)| format!("{} -> {}", from.join("/"), to.join("/")))
        .collect()
}

fn is_split_impl(parent: &Module, child: &Module) -> bool {
    SPLIT_IMPLS.contains(&parent.join("/").as_str()) && child.starts_with(parent)
}

/// Whether one or more steps lead from `start` to `end`.
fn reaches<'a, T: Ord + ?Sized>(start: &'a T, end: &T, next: &dyn Fn(&'a T) -> Vec<&'a T>) -> bool {
    let mut reached = BTreeSet::new();
    let mut open = vec![start];
    while let Some(place) = open.pop() {
        for target in next(place) {
            if target == end {
                return true;
            }
            if reached.insert(target) {
                open.push(target);
            }
        }
    }
    false
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let sources = sources();
    let circles = circles(&references(&sources));
    assert!(circles.is_empty(), "these lead in circles:\n{}", circles.join("\n"));
}

#[test]
fn folders_use_each_other_as_the_architecture_draws_it() {
    let sources = sources();
    let mut found: BTreeSet<(String, String)> = BTreeSet::new();
    for (module, targets) in references(&sources) {
        let Some(from) = module.first() else { continue };
        let folders = targets.iter().filter_map(|target| target.first());
        found.extend(folders.filter(|to| *to != from).map(|to| (from.clone(), to.clone())));
    }
    let drawn = drawn();
    let undrawn: Vec<_> = found.difference(&drawn).collect();
    assert!(undrawn.is_empty(), "not in the table of ARCHITECTURE.md: {undrawn:?}");
    let unused: Vec<_> = drawn.difference(&found).collect();
    assert!(unused.is_empty(), "in the table of ARCHITECTURE.md, but not in the code: {unused:?}");
    for (from, _) in &drawn {
        let uses = |folder: &'_ str| -> Vec<&str> {
            drawn.iter().filter(|(start, _)| start == folder).map(|(_, to)| to.as_str()).collect()
        };
        assert!(!reaches(from.as_str(), from, &uses), "{from} is in a circle of folders");
    }
}

/// The arrows of the table in ARCHITECTURE.md: a folder, and the folders that it uses.
fn drawn() -> BTreeSet<(String, String)> {
    let architecture = page("ARCHITECTURE.md");
    let rows = architecture.text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split('|').collect();
        let [folder, _, uses, _] = cells[..] else { return None };
        Some((folder.trim_matches([' ', '`', '/']).to_owned(), uses))
    });
    let mut arrows = BTreeSet::new();
    for (from, uses) in rows {
        let names = uses.split('`').skip(1).step_by(2);
        arrows.extend(names.map(|to| (from.clone(), to.trim_matches('/').to_owned())));
    }
    arrows
}
