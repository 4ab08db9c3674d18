//! What an object was built from and with.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Kept beside an object, as JSON.
pub(super) struct Record {
    /// Hash of the sources, see [`super::sources::fingerprint`].
    pub(super) sources: String,
    /// SHA-256 of the object.
    pub(super) object: String,
    /// Which way it was built, see [`super::toolchain::Way`].
    pub(super) way: String,
    /// Version of the compiler.
    pub(super) rustc: String,
    /// Version of the LLVM the compiler and, where it is known, the linker use.
    pub(super) llvm: String,
    /// Version of bpf-linker.
    pub(super) linker: String,
}

impl Record {
    /// Reads a record; an error names the file and what is wrong in it.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the record {}", path.display()))?;
        let record: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is no valid JSON", path.display()))?;
        let field = |name: &str| {
            record[name]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("{} has no field {name:?}", path.display()))
        };
        Ok(Self {
            sources: field("sources")?,
            object: field("object")?,
            way: field("way")?,
            rustc: field("rustc")?,
            llvm: field("llvm")?,
            linker: field("linker")?,
        })
    }

    /// Writes the record.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let record = json!({
            "sources": self.sources,
            "object": self.object,
            "way": self.way,
            "rustc": self.rustc,
            "llvm": self.llvm,
            "linker": self.linker,
        });
        fs::write(path, format!("{record:#}\n"))
            .with_context(|| format!("cannot write the record {}", path.display()))
    }

    /// Whether both were built by the same compiler and linker, which gives the same bytes.
    pub(super) fn same_tools(&self, other: &Self) -> bool {
        self.tools() == other.tools()
    }

    /// Compiler and linker, for people.
    pub(super) fn tools(&self) -> String {
        format!(
            "{} (LLVM {}, {}, way {})",
            self.rustc, self.llvm, self.linker, self.way
        )
    }
}
