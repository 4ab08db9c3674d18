//! Which network namespace a process is in.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Where `ip netns` keeps the namespaces that have a name (ip-netns(8)).
const NAMED: &str = "/run/netns";

/// A network namespace, for as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Netns {
    device: u64,
    inode: u64,
}

impl Netns {
    /// That of this thread.
    pub(super) fn own() -> io::Result<Self> {
        Self::at("/proc/thread-self/ns/net")
    }

    /// That of a process. To look at another user's takes a privilege.
    pub(super) fn of(process: i32) -> io::Result<Self> {
        Self::at(PathBuf::from(format!("/proc/{process}/ns/net")))
    }

    fn at(path: impl AsRef<Path>) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
        })
    }

    /// What it is known by beside the one that process 1 is in: the name that `ip netns` gave it,
    /// which outlives it, or else its inode number. None if it is that one, or can't be told from
    /// it.
    pub(super) fn label(self) -> Option<String> {
        let first = Self::of(1).ok();
        if first == Some(self) {
            return None;
        }
        let entries = fs::read_dir(NAMED).into_iter().flatten().flatten();
        let own = entries.filter(|entry| Self::at(entry.path()).is_ok_and(|netns| netns == self));
        let names = own.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.min().or(first.map(|_| self.inode.to_string()))
    }
}
