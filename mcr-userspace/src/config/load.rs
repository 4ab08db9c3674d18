//! From the path of a rule file to its model.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{LARGEST_FILE, model::RuleFile, parse_bytes, report::Report};

/// A rule file that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What it says.
    pub rules: RuleFile,
    /// What may not be meant; may be empty.
    pub warnings: Report,
}

/// Why a rule file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such file.
    #[error("{}: there is no such rule file", .0.display())]
    Missing(PathBuf),
    /// It is a directory.
    #[error("{}: this is a directory, a rule file is wanted", .0.display())]
    Directory(PathBuf),
    /// It is a pipe or device, which may keep a reader waiting.
    #[error("{}: this is no regular file, only such a one can be read again", .0.display())]
    NotRegular(PathBuf),
    /// It may not be read.
    #[error("{}: no permission to read the rule file", .0.display())]
    Permission(PathBuf),
    /// Reading it failed.
    #[error("{}: the rule file can't be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// It was read, and has errors.
    #[error("{0}")]
    Rules(Report),
}

impl LoadError {
    /// The exit code of a command that needs the file, as in `sysexits.h`.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Missing(_) | Self::Directory(_) | Self::NotRegular(_) => 66,
            Self::Permission(_) => 77,
            Self::Io { .. } => 71,
            Self::Rules(_) => 78,
        }
    }

    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Self::Missing(path),
            ErrorKind::IsADirectory => Self::Directory(path),
            ErrorKind::PermissionDenied => Self::Permission(path),
            _ => Self::Io { path, source },
        }
    }
}

/// Reads and checks a rule file.
///
/// # Errors
///
/// Why it can't be used.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let file = File::open(path).map_err(|error| LoadError::io(path, error))?;
    read(path, file)
}

/// As [`load`], for those who can't wait: the file must be a regular one.
///
/// # Errors
///
/// Why it can't be used.
pub fn load_again(path: &Path) -> Result<Loaded, LoadError> {
    let error = |error| LoadError::io(path, error);
    // To open a pipe waits for its other end, unless told not to.
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).map_err(error)?;
    let kind = file.metadata().map_err(error)?.file_type();
    // What a directory is, reading it tells.
    if kind.is_file() || kind.is_dir() {
        read(path, file)
    } else {
        Err(LoadError::NotRegular(path.to_owned()))
    }
}

fn read(path: &Path, file: File) -> Result<Loaded, LoadError> {
    let bytes = bytes(file).map_err(|error| LoadError::io(path, error))?;
    let file = path.display().to_string();
    let report = |diagnostics| Report::new(&file, &String::from_utf8_lossy(&bytes), diagnostics);
    match parse_bytes(&bytes) {
        Ok(parsed) => Ok(Loaded {
            rules: parsed.rules,
            warnings: report(parsed.warnings),
        }),
        Err(diagnostics) => Err(LoadError::Rules(report(diagnostics))),
    }
}

/// The bytes of a file; of one too large (or without an end) one more than is parsed.
fn bytes(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
