//! The clients of the control socket: a thread, and in it a task for each of them.

use std::{io, os::unix::net::UnixListener as StdListener, sync::Arc, thread, time::Duration};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{
    protocol::{Body, LONGEST_REQUEST, Part, Refusal, RefusalKind, Reloaded, Request},
    requests::{Line, Requests},
    snapshot::{About, Snapshot},
};

/// How many clients may be connected at a time: more than people and monitors need.
const CLIENTS: usize = 64;
/// How many large answers may be in memory at a time: to make the largest, of as many routes as
/// there can be, takes some hundreds of MB.
const LARGE_ANSWERS: usize = 2;
/// From how many routes and groups on an answer is large.
const LARGE: usize = 4096;
/// How long to wait where a client can't be accepted, for want of descriptors or memory.
const RETRY: Duration = Duration::from_millis(100);

/// What the controller is asked.
pub enum Ask {
    /// How everything is.
    Snapshot(oneshot::Sender<Arc<Snapshot>>),
    /// To read the rule file again.
    Reload(oneshot::Sender<Result<Reloaded, Refusal>>),
}

/// How long clients, and the controller, may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the beginning, or from the last answer, to the end of a request.
    pub request: Duration,
    /// Without reading any of an answer.
    pub reading: Duration,
    /// To read the whole of an answer.
    pub answer: Duration,
    /// For the controller to say something.
    pub controller: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            reading: Duration::from_secs(5),
            answer: Duration::from_mins(1),
            controller: Duration::from_secs(5),
        }
    }
}

/// What all clients share.
struct Server {
    about: Arc<About>,
    controller: mpsc::Sender<Ask>,
    limits: Limits,
    large: Semaphore,
}

/// Starts a thread that answers clients, for as long as this process lives.
///
/// # Errors
///
/// If there can't be another thread, or no event loop in it.
pub fn start(
    listener: StdListener,
    about: About,
    controller: mpsc::Sender<Ask>,
    limits: Limits,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let server = Arc::new(Server {
        about: Arc::new(about),
        controller,
        limits,
        large: Semaphore::new(LARGE_ANSWERS),
    });
    thread::Builder::new()
        .name("mcr-control".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                match UnixListener::from_std(listener) {
                    Ok(listener) => accept(&listener, &server).await,
                    Err(error) => tracing::error!("the control socket can't be used: {error}"),
                }
            });
        })?;
    Ok(())
}

/// Accepts clients until the controller is gone.
async fn accept(listener: &UnixListener, server: &Arc<Server>) {
    let room = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.controller.closed() => return,
        };
        let Ok((stream, _)) = accepted else {
            sleep(RETRY).await;
            continue;
        };
        if let Ok(place) = Arc::clone(&room).try_acquire_owned() {
            let server = Arc::clone(server);
            tokio::spawn(async move {
                // What goes wrong with a client is its own affair.
                let _ = server.serve(Requests::new(stream)).await;
                drop(place);
            });
        } else {
            turn_away(&stream);
        }
    }
}

/// Says that there is no room. What does not fit in the socket's buffer at once is not said.
fn turn_away(stream: &UnixStream) {
    let message = format!("{CLIENTS} clients are connected already: try again when one is gone");
    let refusal = Refusal::new(RefusalKind::TooManyClients, message);
    if let Ok(line) = Body::Error(refusal).into_line() {
        let _ = stream.try_write(&line);
    }
}

impl Server {
    /// Answers a client until it is gone, or does what ends it.
    async fn serve(&self, mut client: Requests) -> io::Result<()> {
        loop {
            let refusal = match timeout(self.limits.request, client.next()).await {
                Ok(line) => match line? {
                    Line::End => return Ok(()),
                    Line::Whole(line) => {
                        self.answer(&client, &line).await?;
                        continue;
                    }
                    Line::TooLong => Refusal::new(
                        RefusalKind::TooLong,
                        format!("a request has at most {LONGEST_REQUEST} bytes and ends the line"),
                    ),
                },
                Err(_) => Refusal::new(
                    RefusalKind::Timeout,
                    format!("no whole line within {:?}", self.limits.request),
                ),
            };
            // The connection ends here: what comes next can't be a request.
            let line = Body::Error(refusal).into_line()?;
            return client.answer(&line, self.limits.reading).await;
        }
    }

    async fn answer(&self, client: &Requests, line: &[u8]) -> io::Result<()> {
        let body = match Request::parse(line) {
            Err(refusal) => Body::Error(refusal),
            Ok(Request::Reload {}) => {
                let reloaded = self.ask(Ask::Reload).await.and_then(|answer| answer);
                reloaded.map_or_else(Body::Error, Body::Reload)
            }
            Ok(Request::Show { part }) => match self.ask(Ask::Snapshot).await {
                Err(refusal) => Body::Error(refusal),
                Ok(snapshot) => return self.show(client, snapshot, part).await,
            },
        };
        self.write(client, &body.into_line()?).await
    }

    /// Shows a part. What takes long to make is made beside this thread, so that nobody waits for it
    /// who asks for little.
    async fn show(&self, client: &Requests, snapshot: Arc<Snapshot>, part: Part) -> io::Result<()> {
        let large =
            snapshot.entries() > LARGE && matches!(part, Part::All | Part::Routes | Part::Groups);
        let about = Arc::clone(&self.about);
        let line = move || {
            let show = snapshot.show(&about, part);
            let body = show.map_or_else(Body::Error, |show| Body::Show(Box::new(show)));
            body.into_line()
        };
        if !large {
            return self.write(client, &line()?).await;
        }
        let place = self.large.acquire().await.map_err(io::Error::other)?;
        let line = spawn_blocking(line).await??;
        let written = self.write(client, &line).await;
        drop(place);
        written
    }

    /// Asks the controller.
    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Refusal> {
        let (sender, answer) = oneshot::channel();
        let asked = async {
            self.controller.send(ask(sender)).await.ok()?;
            answer.await.ok()
        };
        let busy = |message| Refusal::new(RefusalKind::Busy, message);
        match timeout(self.limits.controller, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(busy("this mcr is ending".to_owned())),
            Err(_) => Err(busy(format!(
                "this mcr is busy: it has not answered within {:?}",
                self.limits.controller
            ))),
        }
    }

    async fn write(&self, client: &Requests, line: &[u8]) -> io::Result<()> {
        let written = client.answer(line, self.limits.reading);
        timeout(self.limits.answer, written).await?
    }
}

#[cfg(test)]
mod tests;
