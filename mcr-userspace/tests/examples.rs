//! What people copy from is right: every example is a rule file without a warning, and so is the
//! one in the README.

use std::{fs, path::Path};

use mcr::config::{load::load, parse};

const TREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn examples_have_no_error_and_no_warning() {
    let mut read = 0;
    for directory in ["examples", "examples/compose"] {
        for entry in fs::read_dir(Path::new(TREE).join(directory)).unwrap() {
            let path = entry.unwrap().path();
            let rules = path
                .extension()
                .is_some_and(|extension| extension == "yaml");
            if !rules {
                continue;
            }
            let loaded = load(&path).unwrap_or_else(|error| panic!("{error}"));
            assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
            read += 1;
        }
    }
    assert!(read >= 2, "the examples are elsewhere");
}

#[test]
fn the_rule_file_in_the_readme_is_one() {
    let readme = fs::read_to_string(Path::new(TREE).join("README.md")).unwrap();
    let (_, block) = readme.split_once("```yaml\n").unwrap();
    let (rules, _) = block.split_once("```").unwrap();
    let parsed = parse(rules).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(parsed.warnings, []);
}
