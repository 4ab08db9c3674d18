//! The lines of the control socket, version 1.
//!
//! A client sends requests, each one line of JSON, and gets one line of JSON for each:
//!
//! ```text
//! {"version":1,"verb":"show","part":"links"}
//! {"version":1,"show":{"instance":"default",…,"links":[…]}}
//! {"version":1,"verb":"reload"}
//! {"version":1,"reload":{"relays":2,"in_force":1,"warnings":[],"restart":[]}}
//! {"version":1,"verb":"dance"}
//! {"version":1,"error":{"kind":"bad-request","message":"unknown variant …"}}
//! ```
//!
//! An answer has `version` and one field that says what it is: `show`, `reload` or `error`. Fields
//! may be added to answers; those there are keep their meaning. A request with a field the server
//! does not know is refused, so that nothing asked for is silently not done.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::view::Show;

/// The version of the protocol.
pub const VERSION: u64 = 1;
/// The longest request, in bytes without the end of the line.
pub const LONGEST_REQUEST: usize = 64 << 10;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What the instance does now.
    Show {
        /// Which part of it.
        #[serde(default)]
        part: Part,
    },
    /// Read the rule file again.
    Reload {},
}

/// A part of what is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Every part.
    #[default]
    All,
    /// The relays and how they are.
    Relays,
    /// What the datapath looks frames up in.
    Routes,
    /// The links that relays name.
    Links,
    /// The groups joined.
    Groups,
    /// Counters, with those of what is gone.
    Counters,
}

/// One line of answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`].
    pub version: u64,
    /// What it says.
    #[serde(flatten)]
    pub body: Body,
}

/// What an answer says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// What was to be shown.
    Show(Box<Show>),
    /// The rule file has been read again and is in force.
    Reload(Reloaded),
    /// It was not done.
    Error(Refusal),
}

/// What came of reading the rule file again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// How many relays there are now.
    pub relays: usize,
    /// How many of them are in force.
    pub in_force: usize,
    /// What may not be meant.
    pub warnings: Vec<Complaint>,
    /// What the file says otherwise than when mcr started, and is done by a restart alone, each as a
    /// sentence.
    #[serde(default)]
    pub restart: Vec<String>,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of thing was wrong.
    pub kind: RefusalKind,
    /// What was wrong and what would be right.
    pub message: String,
    /// What is wrong in the rule file, if that is why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub complaints: Vec<Complaint>,
}

/// The kinds of [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// The line is no request.
    BadRequest,
    /// The request is of another version.
    Version,
    /// The line is longer than [`LONGEST_REQUEST`]. The connection is closed.
    TooLong,
    /// Too many clients are connected. The connection is closed.
    TooManyClients,
    /// No whole request came in time. The connection is closed.
    Timeout,
    /// The controller is ending, or did not answer in time.
    Busy,
    /// There is no rule file to read.
    NoRuleFile,
    /// The rule file may not be read.
    Permission,
    /// The rule file is wrong, or asks for more than there is room for. Nothing has changed.
    Rules,
    /// What the datapath is demanded to do can't be had for a relay. Nothing has changed.
    Denied,
    /// The operating system said no.
    System,
    /// A kind that this version does not know.
    #[serde(other)]
    Other,
}

/// Something in a rule file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complaint {
    /// The rule file.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// `error` or `warning`.
    pub severity: String,
    /// What was found and what would be right.
    pub message: String,
}

impl Request {
    /// Reads a line.
    ///
    /// # Errors
    ///
    /// Why it is no request of this version.
    pub fn parse(line: &[u8]) -> Result<Self, Refusal> {
        let bad = |error: serde_json::Error| {
            let message = format!(
                "this is no request, as {{\"version\":{VERSION},\"verb\":\"show\"}} is one: {error}"
            );
            Refusal::new(RefusalKind::BadRequest, message)
        };
        let mut value: Value = serde_json::from_slice(line).map_err(bad)?;
        // The version comes first: what else is in a request of another one can't be judged.
        let version = value
            .as_object_mut()
            .and_then(|fields| fields.remove("version"));
        if version.as_ref().and_then(Value::as_u64) != Some(VERSION) {
            let found = version.map_or("no version".to_owned(), |v| format!("version {v}"));
            let message = format!("{found}: this mcr speaks `\"version\":{VERSION}`");
            return Err(Refusal::new(RefusalKind::Version, message));
        }
        serde_json::from_value(value).map_err(bad)
    }

    /// The line that asks this, with its end.
    ///
    /// # Errors
    ///
    /// Never; the serializer could fail for other types.
    pub fn line(&self) -> serde_json::Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Line<'a> {
            version: u64,
            #[serde(flatten)]
            request: &'a Request,
        }
        let line = Line {
            version: VERSION,
            request: self,
        };
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

impl Refusal {
    /// A refusal of this kind.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            complaints: Vec::new(),
        }
    }
}

impl Body {
    /// The line that says this, with its end.
    ///
    /// # Errors
    ///
    /// Never; the serializer could fail for other types.
    pub fn into_line(self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(&Answer {
            version: VERSION,
            body: self,
        })?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> Refusal {
        Request::parse(line.as_bytes()).unwrap_err()
    }

    #[test]
    fn requests_are_read_as_they_are_written() {
        let parts = [
            Part::All,
            Part::Relays,
            Part::Routes,
            Part::Links,
            Part::Groups,
            Part::Counters,
        ];
        let shows = parts.map(|part| Request::Show { part });
        for request in shows.into_iter().chain([Request::Reload {}]) {
            let line = request.line().unwrap();
            assert_eq!(line.last(), Some(&b'\n'));
            assert_eq!(Request::parse(&line).unwrap(), request);
        }
        let whole = Request::parse(br#"{"verb":"show","version":1}"#).unwrap();
        assert_eq!(whole, Request::Show { part: Part::All });
    }

    #[test]
    fn what_is_no_request_is_told_what_one_is() {
        for line in [
            "",
            "show",
            "{",
            "\u{0}",
            r#"{"version":1}"#,
            r#"{"version":1,"verb":"dance"}"#,
            r#"{"version":1,"verb":"show","part":"everything"}"#,
            r#"{"version":1,"verb":"show","prt":"links"}"#,
            r#"{"version":1,"verb":"reload","file":"x"}"#,
        ] {
            let refusal = refused(line);
            assert_eq!(refusal.kind, RefusalKind::BadRequest, "{line}: {refusal:?}");
        }
        let part = refused(r#"{"version":1,"verb":"show","part":"everything"}"#);
        assert!(part.message.contains("routes"), "{part:?}");
        let deep = "[".repeat(LONGEST_REQUEST);
        assert_eq!(refused(&deep).kind, RefusalKind::BadRequest);
        assert!(Request::parse(&[0xff, 0xfe]).is_err());
    }

    #[test]
    fn another_version_is_told_apart_whatever_else_it_says() {
        for line in [
            r#"{"version":2,"verb":"dance","with":[]}"#,
            r#"{"verb":"show"}"#,
            r#"{"version":"1","verb":"show"}"#,
            "[]",
            "1",
        ] {
            assert_eq!(refused(line).kind, RefusalKind::Version, "{line}");
        }
    }

    #[test]
    fn answers_of_a_later_mcr_are_read_as_far_as_they_are_known() {
        let line = r#"{"version":1,"more":1,"error":{"kind":"new","message":"m","more":2}}"#;
        let answer: Answer = serde_json::from_str(line).unwrap();
        let Body::Error(refusal) = answer.body else {
            panic!("{answer:?}");
        };
        assert_eq!(refusal, Refusal::new(RefusalKind::Other, "m"));
    }
}
