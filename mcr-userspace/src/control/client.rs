//! Asking a running mcr.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, ErrorKind, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::protocol::{Answer, Body, Refusal, Request, VERSION};

/// How long an answer may take to begin, or to go on.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no socket.
    #[error(
        "{}: no mcr listens here; start `mcr run`, or name the one that is meant by --instance or --socket{}",
        path.display(),
        others(path)
    )]
    NotRunning {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Nobody listens at the socket any more.
    #[error(
        "{}: the mcr that listened here is gone; start `mcr run` again{}",
        path.display(),
        others(path)
    )]
    Dead {
        /// The socket.
        path: PathBuf,
    },
    /// It does not answer.
    #[error("{}: no answer within {PATIENCE:?}: this mcr hangs, or is stopped", .0.display())]
    Silent(PathBuf),
    /// This user may not ask.
    #[error(
        "{}: no permission to ask this mcr: be root, or the user that runs it",
        .0.display()
    )]
    Permission(PathBuf),
    /// Something else went wrong.
    #[error("{}: {source}", path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// It has gone, or given up, before the answer was whole.
    #[error("{}: this mcr ended before it had answered", .0.display())]
    Ended(PathBuf),
    /// It answers something that is not understood.
    #[error(
        "{}: what answers here does not speak version {VERSION} of the control protocol, as this mcr does: {what}",
        path.display()
    )]
    Strange {
        /// The socket.
        path: PathBuf,
        /// What was not understood.
        what: String,
    },
    /// It says no.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

/// Asks the mcr that listens at `path` and returns its answer, as a line without its end and as
/// what it says, which is no error.
///
/// # Errors
///
/// [`AskError`].
pub fn ask(path: &Path, request: &Request) -> Result<(String, Body), AskError> {
    let failed = |error| AskError::system(path, error);
    let line = request.line().map_err(|error| failed(error.into()))?;
    let socket = connect(path).map_err(failed)?;
    match (&socket).write_all(&line) {
        // Who turns clients away may have gone already, but has said why.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(failed(error)),
        _ => {}
    }
    let mut text = String::new();
    let strange = |what: String| AskError::Strange {
        path: path.to_owned(),
        what,
    };
    match BufReader::new(&socket).read_line(&mut text) {
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            return Err(strange("this is no text".to_owned()));
        }
        result => result.map_err(failed)?,
    };
    if text.pop() != Some('\n') {
        return Err(AskError::Ended(path.to_owned()));
    }
    let answer: Answer = serde_json::from_str(&text).map_err(|error| strange(error.to_string()))?;
    match answer.body {
        Body::Error(refusal) => Err(AskError::Refused(refusal)),
        body => Ok((text, body)),
    }
}

fn connect(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // This is also how long to wait for a place among those who wait to be accepted
    // (`unix_stream_connect` in `net/unix/af_unix.c`).
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

impl AskError {
    fn system(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Self::NotRunning { path },
            ErrorKind::ConnectionRefused => Self::Dead { path },
            ErrorKind::PermissionDenied => Self::Permission(path),
            ErrorKind::ConnectionReset => Self::Ended(path),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Silent(path),
            _ => Self::System { path, source },
        }
    }
}

/// The instances that have sockets beside `path`, as the end of a sentence.
fn others(path: &Path) -> String {
    let Some(Ok(entries)) = path.parent().map(fs::read_dir) else {
        return String::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| path.file_name().is_none_or(|own| own != name.as_str()))
        .filter_map(|name| name.strip_suffix(".sock").map(str::to_owned))
        .collect();
    names.sort_unstable();
    if names.is_empty() {
        return String::new();
    }
    format!(" (there are sockets of {})", names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;
    use crate::control::protocol::{Part, RefusalKind};

    const SHOW: Request = Request::Show { part: Part::All };

    /// What a client makes of these bytes.
    fn answered(bytes: &'static [u8]) -> AskError {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || listener.accept().unwrap().0.write_all(bytes));
        let error = ask(&path, &SHOW).unwrap_err();
        server.join().unwrap().unwrap();
        error
    }

    #[test]
    fn where_nobody_listens_it_says_who_does_nearby() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("default.sock");
        let _other = UnixListener::bind(directory.path().join("lab.sock")).unwrap();
        let error = ask(&path, &SHOW).unwrap_err();
        assert!(matches!(error, AskError::NotRunning { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("default.sock") && text.ends_with("(there are sockets of lab)"),
            "{text}"
        );
        drop(UnixListener::bind(&path).unwrap());
        let error = ask(&path, &SHOW).unwrap_err();
        assert!(matches!(error, AskError::Dead { .. }), "{error}");
    }

    #[test]
    fn strange_answers_are_told() {
        for bytes in [
            &b"{}\n"[..],
            b"hello\n",
            b"\xff\n",
            b"{\"version\":2,\"dance\":1}\n",
        ] {
            let error = answered(bytes);
            let told = matches!(error, AskError::Strange { .. });
            assert!(told, "{bytes:?}: {error:?}");
        }
        for bytes in [&b""[..], b"{", b"{\"version\":1,"] {
            let error = answered(bytes);
            assert!(matches!(error, AskError::Ended(_)), "{bytes:?}: {error:?}");
        }
    }

    #[test]
    fn a_refusal_is_an_error() {
        let error =
            answered(b"{\"version\":1,\"error\":{\"kind\":\"busy\",\"message\":\"later\"}}\n");
        let AskError::Refused(refusal) = error else {
            panic!("{error:?}");
        };
        assert_eq!(refusal.kind, RefusalKind::Busy);
    }
}
