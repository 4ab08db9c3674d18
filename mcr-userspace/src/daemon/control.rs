//! The control socket of this instance, and what is asked through it.

use std::{
    fs, io, iter,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use tokio::sync::mpsc;

use super::{Controller, Settings, netns::Netns, reload::reload};
use crate::control::{
    About, Ask, Limits,
    listener::{ListenError, Listener, SocketFile},
    place, start,
};

/// How many questions may wait for the controller. A client waits with its next one.
const QUESTIONS: usize = 64;

/// What clients ask, and the socket they ask it through. Its file goes with this value.
pub(super) struct Questions {
    waiting: mpsc::Receiver<Ask>,
    /// Kept so that waiting for questions does not end where there is no socket.
    _sender: mpsc::Sender<Ask>,
    _file: Option<SocketFile>,
}

/// Opens the control socket: where settings say, or where the name of the instance does. Where
/// nobody has asked for one, to be without one is no reason not to relay, unless another instance
/// of this name is running in the same network namespace: namespaces share the socket's directory,
/// but nothing that is relayed.
///
/// # Errors
///
/// [`ListenError`].
pub(super) fn open(settings: &Settings) -> Result<Questions, ListenError> {
    let (sender, waiting) = mpsc::channel(QUESTIONS);
    let file = match listen(settings, sender.clone()) {
        Ok(file) => Some(file),
        Err(ListenError::InUse { path, holder }) if !asked_for(settings) && elsewhere(holder) => {
            tracing::warn!(
                "{}: an mcr in another network namespace listens here; frames are relayed, but \
                 `mcr show` can't ask this one unless it has a name of its own (--instance)",
                path.display()
            );
            None
        }
        Err(error @ ListenError::InUse { .. }) => return Err(error),
        Err(error) if settings.socket.is_some() => return Err(error),
        Err(error) => {
            tracing::warn!("{error}; frames are relayed, but `mcr show` can't ask for them");
            None
        }
    };
    Ok(Questions {
        waiting,
        _sender: sender,
        _file: file,
    })
}

fn asked_for(settings: &Settings) -> bool {
    settings.named || settings.socket.is_some()
}

/// Whether a process is in another network namespace than this one. What can't be told counts as
/// the same.
fn elsewhere(process: Option<i32>) -> bool {
    let theirs = process.map(Netns::of).and_then(Result::ok);
    theirs.is_some_and(|theirs| Netns::own().is_ok_and(|own| own != theirs))
}

fn listen(settings: &Settings, sender: mpsc::Sender<Ask>) -> Result<SocketFile, ListenError> {
    let path = settings.socket.clone().unwrap_or_else(|| {
        // What goes wrong with the directory goes wrong with the socket in it.
        let _ = fs::create_dir_all(place::DIRECTORY);
        settings.instance.socket()
    });
    let (socket, file) = Listener::bind(&path)?.into_parts();
    let about = About {
        instance: settings.instance.clone(),
        file: settings.file.as_deref().map(absolute),
        since: Instant::now(),
    };
    start(socket, about, sender, Limits::default())
        .map_err(|source: io::Error| ListenError::System { path, source })?;
    Ok(file)
}

/// The path as it is from everywhere.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

impl Questions {
    /// Waits for a question.
    pub(super) async fn next(&mut self) -> Option<Ask> {
        self.waiting.recv().await
    }

    /// Answers a question and those that wait behind it. All who ask how everything is get the same
    /// answer, so that many who ask cost no more than one.
    pub(super) fn answer(&mut self, first: Ask, settings: &Settings, controller: &mut Controller) {
        let waiting = self.waiting.len();
        let behind = (0..waiting).map_while(|_| self.waiting.try_recv().ok());
        let mut curious = Vec::new();
        for ask in iter::once(first).chain(behind) {
            match ask {
                Ask::Snapshot(client) => curious.push(client),
                Ask::Reload(client) => {
                    // Who does not wait for the answer still has it done.
                    let _ = client.send(reload(settings, controller));
                }
            }
        }
        if curious.is_empty() {
            return;
        }
        let snapshot = Arc::new(controller.snapshot());
        for client in curious {
            let _ = client.send(Arc::clone(&snapshot));
        }
    }
}
