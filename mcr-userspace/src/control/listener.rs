//! The socket itself: one that is left over is replaced, one that is in use is left alone.

use std::{
    fs::{self, File, Permissions},
    io::{self, ErrorKind},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use socket2::{Domain, SockAddr, Socket, Type};

/// Who may ask: the user that runs mcr, and root. Whoever may ask may also change what is relayed.
const MODE: u32 = 0o600;
/// How many clients may wait to be accepted; beyond it, they wait to be allowed to wait.
const BACKLOG: i32 = 128;
/// How long another process may take to make its socket beside ours.
const PATIENCE: Duration = Duration::from_secs(1);

/// A socket that clients can connect to. Its file is removed with this value.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    file: SocketFile,
}

/// The file of a socket, removed with this value if it is still the one that was made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process listens.
    #[error(
        "{}: another mcr listens here; end it, or give this one a name of its own with --instance",
        path.display()
    )]
    InUse {
        /// Where.
        path: PathBuf,
        /// Its process ID; none if it can't be told.
        holder: Option<i32>,
    },
    /// Something else has that name.
    #[error("{}: this is there already and no socket; name another path", .0.display())]
    NotASocket(PathBuf),
    /// The operating system said no.
    #[error("{}: the control socket can't be made: {source}: {}", path.display(), remedy(path, source))]
    System {
        /// Where it was to be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn remedy(path: &Path, error: &io::Error) -> String {
    const ANOTHER: &str = "name another place with --socket";
    match (error.kind(), path.parent()) {
        (ErrorKind::NotFound, Some(directory)) => {
            format!("make the directory {}, or {ANOTHER}", directory.display())
        }
        (ErrorKind::PermissionDenied, _) => format!("{ANOTHER}, where this user may write"),
        _ => ANOTHER.to_owned(),
    }
}

impl Listener {
    /// Listens at `path`. What a dead process left there is replaced. The file has mode 0600 before
    /// anybody can connect.
    ///
    /// # Errors
    ///
    /// [`ListenError`].
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        let system = |source| ListenError::System {
            path: path.to_owned(),
            source,
        };
        // Of two that find the same socket left over, the second one would remove what the first
        // one has made of it.
        let alone = alone(path);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(system)?;
        let address = SockAddr::unix(path).map_err(system)?;
        match socket.bind(&address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                remove_dead(path, &address)?;
                socket.bind(&address).map_err(system)?;
            }
            result => result.map_err(system)?,
        }
        let file = SocketFile::of(path).map_err(system)?;
        fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(system)?;
        socket.listen(BACKLOG).map_err(system)?;
        socket.set_nonblocking(true).map_err(system)?;
        drop(alone);
        Ok(Self {
            socket: socket.into(),
            file,
        })
    }

    /// The socket, which does not block, and its file.
    #[must_use]
    pub fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.socket, self.file)
    }
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // What stays is replaced by the next one.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A lock on the directory, given up with this value. Whoever may read the directory can hold one,
/// so it is waited for only so long.
fn alone(path: &Path) -> Option<File> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = File::open(directory).ok()?;
    let deadline = Instant::now() + PATIENCE;
    while directory.try_lock().is_err() {
        if Instant::now() > deadline {
            return None;
        }
        sleep(PATIENCE / 100);
    }
    Some(directory)
}

/// Removes the socket of a process that is no more.
fn remove_dead(path: &Path, address: &SockAddr) -> Result<(), ListenError> {
    let system = |source| ListenError::System {
        path: path.to_owned(),
        source,
    };
    let meta = fs::symlink_metadata(path).map_err(system)?;
    if !meta.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    let client = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(system)?;
    client.set_nonblocking(true).map_err(system)?;
    match client.connect(address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(system)
        }
        Ok(()) => Err(ListenError::InUse {
            path: path.to_owned(),
            holder: holder(&client),
        }),
        // One that has no time for another client is alive.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ListenError::InUse {
            path: path.to_owned(),
            holder: None,
        }),
        Err(error) => Err(system(error)),
    }
}

/// The process that listens where this socket is connected to: `SO_PEERCRED` of unix(7). 0 stands
/// for one in a PID namespace that can't be seen from here.
fn holder(client: &Socket) -> Option<i32> {
    let credentials = getsockopt(client, PeerCredentials).ok()?;
    Some(credentials.pid()).filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixStream, sync::Barrier};

    use super::*;

    #[test]
    fn the_file_is_for_the_owner_alone_and_goes_with_the_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_living_one_is_left_alone_and_a_dead_one_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let living = UnixListener::bind(&path).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let error = Listener::bind(&path).unwrap_err();
        assert!(
            matches!(error, ListenError::InUse { holder: Some(pid), .. } if pid == me),
            "{error}"
        );
        assert!(error.to_string().contains("--instance"), "{error}");
        UnixStream::connect(&path).unwrap();
        drop(living);
        let _now = Listener::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn what_is_no_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        fs::write(&path, "precious").unwrap();
        let error = Listener::bind(&path).unwrap_err();
        assert!(matches!(error, ListenError::NotASocket(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        let error = Listener::bind(&link).unwrap_err();
        assert!(matches!(error, ListenError::NotASocket(_)), "{error}");
    }

    #[test]
    fn the_socket_of_a_successor_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = Listener::bind(&path).unwrap();
        fs::rename(&path, directory.path().join("away")).unwrap();
        let _second = Listener::bind(&path).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_missing_directory_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("none/s");
        let error = Listener::bind(&path).unwrap_err().to_string();
        let directory = path.parent().unwrap().display();
        let remedy = format!("make the directory {directory}, or name another place");
        assert!(
            error.contains("none/s: ") && error.contains(&remedy),
            "{error}"
        );
    }

    #[test]
    fn of_many_at_once_one_gets_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        for _ in 0..100 {
            drop(UnixListener::bind(&path).unwrap());
            let start = Barrier::new(8);
            let at_once = || {
                start.wait();
                Listener::bind(&path)
            };
            let bound: Vec<_> = std::thread::scope(|scope| {
                let all: Vec<_> = (0..8).map(|_| scope.spawn(at_once)).collect();
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            assert_eq!(bound.iter().filter(|result| result.is_ok()).count(), 1);
            UnixStream::connect(&path).unwrap();
        }
    }
}
