use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream as Client,
    path::PathBuf,
    thread,
    time::Instant,
};

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::{daemon::Report, plan::Join, plan::World};

/// A server with a controller that answers at once, but for reloading, which it never does.
struct Served {
    directory: TempDir,
    controller: Option<thread::JoinHandle<usize>>,
    /// Ends the controller.
    end: Option<oneshot::Sender<()>>,
}

fn snapshot(groups: u32) -> Snapshot {
    let join = |number: u32| Join::Group {
        ifindex: 1,
        group: std::net::Ipv4Addr::from_bits(0xef00_0000 + number).into(),
        source: None,
    };
    Snapshot {
        world: World::default(),
        relays: Vec::new(),
        table: Arc::default(),
        datapath: "fake",
        joins: (0..groups)
            .map(|number| (join(number), None))
            .collect::<BTreeMap<_, _>>(),
        versions: BTreeMap::new(),
        storms: BTreeMap::new(),
        report: Ok(Report::default()),
    }
}

impl Served {
    fn new(limits: Limits, groups: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = StdListener::bind(directory.path().join("s")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (sender, mut asks) = mpsc::channel(64);
        let about = About {
            instance: "test".parse().unwrap(),
            file: None,
            since: Instant::now(),
        };
        start(listener, about, sender, limits).unwrap();
        let (end, mut ended) = oneshot::channel();
        let controller = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let snapshot = Arc::new(snapshot(groups));
            let mut never = Vec::new();
            let mut asked = 0;
            runtime.block_on(async {
                loop {
                    let ask = tokio::select! {
                        ask = asks.recv() => ask.unwrap(),
                        _ = &mut ended => return asked,
                    };
                    asked += 1;
                    match ask {
                        Ask::Snapshot(client) => drop(client.send(Arc::clone(&snapshot))),
                        Ask::Reload(client) => never.push(client),
                    }
                }
            })
        });
        Self {
            directory,
            controller: Some(controller),
            end: Some(end),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    fn connect(&self) -> Client {
        let client = Client::connect(self.path()).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        client
    }

    /// Ends the controller and says how often it was asked.
    fn finish(mut self) -> usize {
        drop(self.end.take());
        self.controller.take().unwrap().join().unwrap()
    }
}

/// No client of a test is as slow as this.
fn patient() -> Limits {
    Limits {
        request: Duration::from_mins(1),
        reading: Duration::from_mins(1),
        answer: Duration::from_mins(1),
        controller: Duration::from_mins(1),
    }
}

fn line(client: &Client) -> Value {
    let mut text = String::new();
    BufReader::new(client).read_line(&mut text).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

fn kind(answer: &Value) -> &str {
    answer["error"]["kind"].as_str().unwrap_or_default()
}

const SHOW: &[u8] = b"{\"version\":1,\"verb\":\"show\"}\n";

#[test]
fn a_client_may_ask_again_and_garbage_ends_nothing() {
    let served = Served::new(patient(), 1);
    let mut client = served.connect();
    client.write_all(SHOW).unwrap();
    assert_eq!(line(&client)["show"]["instance"], "test");
    client.write_all(b"\xff\x00garbage\n").unwrap();
    assert_eq!(kind(&line(&client)), "bad-request");
    client.write_all(SHOW).unwrap();
    assert_eq!(line(&client)["show"]["groups"][0]["group"], "239.0.0.0");
    assert_eq!(served.finish(), 2, "garbage reached the controller");
}

#[test]
fn requests_may_come_in_pieces_together_and_without_an_end() {
    let served = Served::new(patient(), 0);
    let mut client = served.connect();
    let (first, second) = SHOW.split_at(9);
    client.write_all(first).unwrap();
    let together = [second, SHOW, &SHOW[..SHOW.len() - 1]].concat();
    client.write_all(&together).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("\"show\"").count(), 3, "{text}");
}

#[test]
fn a_line_without_an_end_is_refused_before_it_is_large() {
    let served = Served::new(patient(), 0);
    let mut client = served.connect();
    // The most that is right, and one more.
    let mut most = vec![b' '; LONGEST_REQUEST - SHOW.len() + 1];
    most.extend_from_slice(SHOW);
    client.write_all(&most).unwrap();
    assert_eq!(line(&client)["version"], 1);
    most.insert(0, b' ');
    client.write_all(&most).unwrap();
    assert_eq!(kind(&line(&client)), "too-long");
    let mut flood = served.connect();
    let sent = flood.write_all(&vec![b'x'; 10 << 20]);
    assert!(sent.is_err(), "10 MiB were taken");
    assert_eq!(kind(&line(&flood)), "too-long");
}

#[test]
fn who_says_nothing_is_told_and_closed() {
    let limits = Limits {
        request: Duration::from_millis(50),
        ..patient()
    };
    let served = Served::new(limits, 0);
    let mut half = served.connect();
    half.write_all(b"{\"version\":1,").unwrap();
    for mut client in [half, served.connect()] {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(
            text.contains("\"timeout\"") && text.ends_with("}\n"),
            "{text}"
        );
    }
}

#[test]
fn who_never_reads_is_closed_and_delays_nobody() {
    let limits = Limits {
        reading: Duration::from_millis(200),
        ..patient()
    };
    // An answer that no socket buffer holds.
    let served = Served::new(limits, 100_000);
    let mut deaf: Vec<_> = (0..LARGE_ANSWERS).map(|_| served.connect()).collect();
    for client in &mut deaf {
        client.write_all(SHOW).unwrap();
    }
    let mut client = served.connect();
    client.write_all(SHOW).unwrap();
    let answer = line(&client);
    assert_eq!(
        answer["show"]["groups"].as_array().map(Vec::len),
        Some(100_000)
    );
    for mut client in deaf {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(!text.is_empty() && !text.ends_with('\n'), "all was sent");
    }
}

#[test]
fn there_is_room_for_so_many_and_again_when_one_is_gone() {
    let served = Served::new(patient(), 0);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| served.connect()).collect();
    for client in &mut clients {
        client.write_all(SHOW).unwrap();
        assert_eq!(line(client)["version"], 1);
    }
    let mut text = String::new();
    served.connect().read_to_string(&mut text).unwrap();
    assert!(text.contains("\"too-many-clients\""), "{text}");
    clients.pop();
    // The server learns that one is gone when it comes to it.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut client = served.connect();
        // One that is turned away may be closed before it has said anything.
        let _ = client.write_all(SHOW);
        if line(&client)["show"].is_object() {
            break;
        }
        assert!(Instant::now() < deadline, "there is no room again");
    }
}

#[test]
fn a_controller_that_is_silent_or_gone_is_told() {
    let limits = Limits {
        controller: Duration::from_millis(50),
        ..patient()
    };
    let served = Served::new(limits, 0);
    let mut client = served.connect();
    client
        .write_all(b"{\"version\":1,\"verb\":\"reload\"}\n")
        .unwrap();
    let answer = line(&client);
    assert_eq!(kind(&answer), "busy", "{answer}");
    assert_eq!(served.finish(), 1);
}
