//! Imports among the files of `src/` run one way, and ARCHITECTURE.md has all of them between modules. No file is long.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The path of a module from the root of the crate, such as `["store", "disk"]`.
type Module = Vec<String>;

/// Reads all modules of the library below `directory`: each with its code, without comments and tests; those may be in a file
/// `tests.rs`.
fn read(directory: &Path, above: &Module, modules: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let module: Module = above.iter().cloned().chain([name.to_owned()]).collect();
        if path.is_dir() {
            read(&path, &module, modules);
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "tests" {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            modules.insert(module, code.collect::<Vec<_>>().join("\n"));
        }
    }
}

/// The library's modules: what `src/lib.rs` declares, and what is below that.
fn library() -> BTreeMap<Module, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules = BTreeMap::new();
    read(&source, &Vec::new(), &mut modules);
    let root = modules.get(&vec!["lib".to_owned()]).unwrap().clone();
    modules.retain(|module, _| root.contains(&format!("mod {};", module[0])));
    modules
}

/// All paths that code names behind `crate::` or `super::`, with braces written out: `a::{b, c::d}` is `a::b` and
/// `a::c::d`.
fn paths(code: &str, module: &Module) -> Vec<Module> {
    let mut found = Vec::new();
    for (place, _) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        let before = code[..place].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let mut rest = &code[place..];
        let mut start = if rest.starts_with("crate::") { Vec::new() } else { module.clone() };
        while let Some(after) = rest.strip_prefix("super::") {
            start.pop();
            rest = after;
        }
        expand(rest.strip_prefix("crate::").unwrap_or(rest), &start, &mut found);
    }
    found
}

/// Reads one path, or a group of them, and gives what follows it.
fn expand<'a>(mut rest: &'a str, start: &Module, found: &mut Vec<Module>) -> &'a str {
    let mut path = start.clone();
    loop {
        rest = rest.trim_start();
        if let Some(mut group) = rest.strip_prefix('{') {
            loop {
                group = group.trim_start().trim_start_matches(',').trim_start();
                if let Some(after) = group.strip_prefix('}') {
                    return after;
                }
                group = expand(group, &path, found);
            }
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        path.push(rest[..end].to_owned());
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(after) => rest = after,
            None => break,
        }
    }
    found.push(path);
    match rest.trim_start().strip_prefix("as ") {
        Some(alias) => alias.trim_start().trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'),
        // A group goes on behind a comma; what is no part of a path ends it.
        None if rest.is_empty() || rest.trim_start().starts_with([',', '}']) => rest,
        None => rest.get(1..).unwrap_or(""),
    }
}

/// For each module the modules that it imports from: the longest that a path names. A module and what is below it are one
/// tree, and do not count.
fn imports(modules: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let home = |mut path: Module| {
        while !path.is_empty() && !modules.contains_key(&path) {
            path.pop();
        }
        path
    };
    let of = |module: &Module, code: &str| {
        let named = paths(code, module).into_iter().map(home);
        named.filter(|other| !other.starts_with(module) && !module.starts_with(other)).collect()
    };
    modules.iter().map(|(module, code)| (module.clone(), of(module, code))).collect()
}

/// A circle of imports, if there is one: what is left where modules without imports are taken away again and again.
fn circle(mut imports: BTreeMap<Module, BTreeSet<Module>>) -> BTreeMap<Module, BTreeSet<Module>> {
    loop {
        let leaves: Vec<Module> =
            imports.iter().filter(|(_, others)| others.is_empty()).map(|(module, _)| module.clone()).collect();
        if leaves.is_empty() {
            return imports;
        }
        for leaf in leaves {
            imports.remove(&leaf);
            imports.values_mut().for_each(|others| others.retain(|other| *other != leaf));
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let rest = circle(imports(&library()));
    assert!(rest.is_empty(), "a circle, and what leads to it: {rest:#?}");
}

#[test]
fn a_circle_is_found() {
    let modules = [("a", "use crate::b::{self, c as d};"), ("b", "use crate::e;"), ("e", "fn f() { super::a::g(); }")];
    let modules = modules.map(|(module, code)| (vec![module.to_owned()], code.to_owned())).into();
    assert_eq!(circle(imports(&modules)).len(), 3);
}

#[test]
fn the_architecture_has_the_imports_between_modules() {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, others) in imports(&library()) {
        let others = others.into_iter().map(|other| other[0].clone()).filter(|other| *other != module[0]);
        found.entry(module[0].clone()).or_default().extend(others);
    }
    let found: Vec<String> = found
        .iter()
        .filter(|(_, others)| !others.is_empty())
        .map(|(module, others)| {
            format!("{module} -> {}", others.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
        })
        .collect();
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let drawn = page.split("```imports\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap_or_default();
    assert_eq!(drawn.lines().collect::<Vec<_>>(), found, "ARCHITECTURE.md and src/ differ");
}

/// Most lines of a file of `src/`, with its tests.
const LINES_MAX: usize = 650;

fn check_lengths(directory: &Path, found: &mut usize) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            check_lengths(&path, found);
        } else {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            assert!(lines <= LINES_MAX, "{} has {lines} lines, and the limit is {LINES_MAX}", path.display());
            *found += 1;
        }
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    let mut found = 0;
    check_lengths(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found > 100, "{found} files");
}
