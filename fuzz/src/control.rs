//! Lines of the control socket, as server and client read them.
//!
//! - Reading ends; a request that is one, written again, is the same request.
//! - A refusal is one line that a client can read, not much longer than what it refuses.

use mcr::control::protocol::{Answer, Body, Part, Request, VERSION};

/// What a refusal may be longer than the line it refuses, which it may quote with every byte
/// escaped.
const WORDS: usize = 1024;
const ESCAPED: usize = 12;

/// Takes an input.
///
/// # Panics
///
/// On a finding.
pub fn run(line: &[u8]) {
    match Request::parse(line) {
        Ok(request) => {
            let written = request.line().expect("requests can be written");
            let (end, written) = written.split_last().expect("a line has an end");
            assert_eq!(*end, b'\n');
            assert!(!written.contains(&b'\n'));
            assert_eq!(Request::parse(written).as_ref(), Ok(&request));
        }
        Err(refusal) => {
            let answer = Answer {
                version: VERSION,
                body: Body::Error(refusal.clone()),
            };
            let written = serde_json::to_vec(&answer).expect("refusals can be written");
            assert!(!written.contains(&b'\n'));
            assert!(written.len() <= WORDS + ESCAPED * line.len());
            let read: Answer = serde_json::from_slice(&written).expect("refusals can be read");
            assert!(matches!(read.body, Body::Error(read) if read == refusal));
        }
    }
    if let Ok(answer) = serde_json::from_slice::<Answer>(line) {
        let written = serde_json::to_vec(&answer).expect("answers can be written");
        let read: Answer = serde_json::from_slice(&written).expect("answers can be read");
        assert_eq!(format!("{read:?}"), format!("{answer:?}"));
    }
}

/// Requests and answers.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let parts = [
        Part::All,
        Part::Relays,
        Part::Routes,
        Part::Links,
        Part::Groups,
        Part::Counters,
    ];
    let requests = parts.map(|part| Request::Show { part });
    let requests = requests.into_iter().chain([Request::Reload {}]);
    let lines = requests.filter_map(|request| request.line().ok());
    let others = [
        r#"{"verb":"show","version":1}"#,
        r#"{"version":2,"verb":"show"}"#,
        r#"{"version":1,"verb":"dance","part":"\u00fc\n"}"#,
        r#"{"version":1,"reload":{"relays":2,"in_force":1,"warnings":[{"file":"f","line":1,"column":2,"severity":"warning","message":"m"}]}}"#,
        r#"{"version":1,"error":{"kind":"rules","message":"m","complaints":[]}}"#,
        r#"{"version":1,"error":{"kind":"no-such-kind","message":"m"}}"#,
    ];
    let others = others.map(|line| line.as_bytes().to_vec());
    lines.chain(others).collect()
}
