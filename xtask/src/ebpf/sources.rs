//! The hash that says whether an object was built from the sources present.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::workspace::Workspace;

/// The crates that end up in the object.
const CRATES: [&str; 2] = ["mcr-ebpf", "mcr-common"];

/// Beginnings of the names of the packages that end up in the object. Only their versions count:
/// the rest of the lock file is about the controller.
const PACKAGES: [&str; 2] = ["aya-ebpf", "aya-log-"];

/// SHA-256 over the paths and contents of the sources of the object, in the order of their paths,
/// and the versions of the packages it is made with.
pub(super) fn fingerprint(workspace: &Workspace) -> Result<String> {
    let mut files = Vec::new();
    for name in CRATES {
        files.push(PathBuf::from(name).join("Cargo.toml"));
        collect(&workspace.root, &Path::new(name).join("src"), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in &files {
        let path = workspace.path(file);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = file.as_os_str().as_encoded_bytes();
        add(&mut hash, name);
        add(&mut hash, &bytes);
    }
    let lock = workspace.path("Cargo.lock");
    let lock =
        fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    for package in packages(&lock) {
        add(&mut hash, package.as_bytes());
    }
    Ok(hex(&hash.finalize()))
}

/// SHA-256 of `bytes`, in hexadecimal.
pub(crate) fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Adds one item with its length, so that no two lists of items are hashed alike.
fn add(hash: &mut Sha256, item: &[u8]) {
    hash.update(item.len().to_string());
    hash.update([0]);
    hash.update(item);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn collect(root: &Path, relative: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let dir = root.join(relative);
    let context = || format!("cannot list {}", dir.display());
    for entry in fs::read_dir(&dir).with_context(context)? {
        let entry = entry.with_context(context)?;
        let path = relative.join(entry.file_name());
        if entry.file_type().with_context(context)?.is_dir() {
            collect(root, &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// `name version` of the packages in a lock file that end up in the object.
fn packages(lock: &str) -> Vec<String> {
    let value = |line: &str, key: &str| {
        let quoted = line.strip_prefix(key)?.strip_prefix(" = \"")?;
        quoted.strip_suffix('"').map(str::to_owned)
    };
    let mut found = Vec::new();
    let mut current = None;
    for line in lock.lines() {
        if let Some(name) = value(line, "name") {
            current = PACKAGES
                .iter()
                .any(|start| name.starts_with(start))
                .then_some(name);
        } else if let Some(version) = value(line, "version")
            && let Some(name) = current.take()
        {
            found.push(format!("{name} {version}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"
version = 4

[[package]]
name = "aya"
version = "0.14.0"

[[package]]
name = "aya-ebpf"
version = "0.2.1"
source = "registry"

[[package]]
name = "clap"
version = "4.6.0"
"#;

    #[test]
    fn only_packages_of_the_object_count() {
        assert_eq!(packages(LOCK), ["aya-ebpf 0.2.1"]);
        assert_ne!(packages(LOCK), packages(&LOCK.replace("0.2.1", "0.2.2")));
    }

    #[test]
    fn items_are_kept_apart() {
        let of = |items: &[&str]| {
            let mut hash = Sha256::new();
            for item in items {
                add(&mut hash, item.as_bytes());
            }
            hex(&hash.finalize())
        };
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab"]), of(&["a", "b"]));
    }

    #[test]
    fn hashes_are_sha256() {
        // FIPS 180-4, the example "abc".
        assert_eq!(
            hash(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
