//! Where things are in the tree, and how cargo is called in it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell;

/// The tree this runs in.
pub(crate) struct Workspace {
    /// Directory of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Cargo's target directory.
    pub(crate) target: PathBuf,
}

/// A program cargo built.
pub(crate) struct Executable {
    /// Name of the cargo target.
    pub(crate) name: String,
    /// The file.
    pub(crate) path: PathBuf,
    /// Whether it is a test binary.
    pub(crate) test: bool,
}

impl Workspace {
    /// Asks cargo where the workspace is.
    pub(crate) fn find() -> Result<Self> {
        let mut metadata = cargo();
        if let Some(own) = env::var_os("CARGO_MANIFEST_DIR") {
            metadata.current_dir(own);
        }
        metadata.args(["metadata", "--format-version=1", "--no-deps", "--offline"]);
        let metadata: Value = serde_json::from_str(&shell::output(&mut metadata)?)
            .context("cargo metadata printed no valid JSON")?;
        let path = |key: &str| {
            metadata[key]
                .as_str()
                .map(PathBuf::from)
                .with_context(|| format!("cargo metadata names no {key}"))
        };
        Ok(Self {
            root: path("workspace_root")?,
            target: path("target_directory")?,
        })
    }

    /// Cargo, run from the root of the workspace.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = cargo();
        command.current_dir(&self.root);
        command
    }

    /// A path of the tree.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }
}

/// Runs a cargo command that builds, and gives the programs it built (those already up to date
/// included). Compiler messages go to the terminal.
pub(crate) fn executables(cargo: &mut Command) -> Result<Vec<Executable>> {
    cargo
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    let messages = shell::output(cargo)?;
    let mut found = Vec::new();
    for line in messages.lines() {
        let message: Value =
            serde_json::from_str(line).context("cargo printed a message that is no JSON")?;
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        let (Some(path), Some(name)) = (
            message["executable"].as_str(),
            message["target"]["name"].as_str(),
        ) else {
            continue;
        };
        found.push(Executable {
            name: name.to_owned(),
            path: path.into(),
            test: message["profile"]["test"] == true,
        });
    }
    Ok(found)
}

/// The program called `name` among those cargo built.
pub(crate) fn program<'a>(built: &'a [Executable], name: &str) -> Result<&'a Path> {
    match built.iter().find(|exe| exe.name == name && !exe.test) {
        Some(exe) => Ok(&exe.path),
        None => bail!("cargo built no program called {name}"),
    }
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
