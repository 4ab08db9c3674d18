//! The single values of a rule, each from its text. The rule file and the flags of `mcr run`
//! share them.

use std::path::PathBuf;

use super::{
    model::{DatapathChoice, LinkName, LinkSelector, Local, SourceMac, Ttl},
    problem::{Kind, Problem, listed, nearest, quote},
};
use crate::control::place::socket_path;

mod address;
mod dscp;
mod frames;
mod limit;
mod port;
mod protocol;
mod vlan;

pub use self::{
    address::{Sources, gateway, group, new_group, new_source, source, unicast},
    dscp::dscp,
    frames::{Ethertype, ethertype, mac},
    limit::{limit, links, routes},
    port::{new_port, port},
    protocol::{Protocol, UDP, protocol},
    vlan::{new_vlan, vlan},
};

/// The longest name of a relay, in characters: what fits in a column of `mcr show`.
pub const LONGEST_NAME: usize = 64;

/// The version of the rule file, which can only be 1.
///
/// # Errors
///
/// [`Kind::Version`].
pub fn version(text: &str) -> Result<(), Problem> {
    if text == "1" {
        return Ok(());
    }
    let message = format!("version {}: this mcr reads `version: 1`", quote(text));
    Err(Problem::new(Kind::Version, message))
}

/// Who makes the copies.
///
/// # Errors
///
/// [`Kind::Datapath`].
pub fn datapath(text: &str) -> Result<DatapathChoice, Problem> {
    const WORDS: &[(&str, DatapathChoice)] = &[
        ("auto", DatapathChoice::Auto),
        ("xdp", DatapathChoice::Xdp),
        ("tc", DatapathChoice::Tc),
        ("afpacket", DatapathChoice::AfPacket),
    ];
    choice(text, Kind::Datapath, "a datapath", WORDS)
}

/// Where the control socket is, from the root of the file system: a daemon is started from
/// anywhere.
///
/// # Errors
///
/// [`Kind::SocketPath`].
pub fn socket(text: &str) -> Result<PathBuf, Problem> {
    let problem = |why: &str| {
        Problem::new(
            Kind::SocketPath,
            format!("{} is no place for a socket: {why}", quote(text)),
        )
    };
    if !text.starts_with('/') {
        return Err(problem(
            "a path from the root is wanted, as /run/mcr/default.sock",
        ));
    }
    socket_path(text).map_err(|why| problem(&why))
}

/// What happens to the TTL of copies.
///
/// # Errors
///
/// [`Kind::NotATtl`] and [`Kind::TtlOutOfRange`].
pub fn ttl(text: &str) -> Result<Ttl, Problem> {
    const WORDS: &[(&str, Ttl)] = &[("keep", Ttl::Keep), ("decrement", Ttl::Decrement)];
    if let Some(value) = number(text) {
        if let Ok(value @ 1..) = u8::try_from(value) {
            return Ok(Ttl::Set(value));
        }
        let message = format!("TTL {} is out of range: 1 to 255 is right", quote(text));
        return Err(Problem::new(Kind::TtlOutOfRange, message));
    }
    choice(text, Kind::NotATtl, "a TTL (1 to 255)", WORDS)
}

/// Which source address copies carry.
///
/// # Errors
///
/// [`Kind::SourceMac`].
pub fn source_mac(text: &str) -> Result<SourceMac, Problem> {
    const WORDS: &[(&str, SourceMac)] = &[
        ("auto", SourceMac::Auto),
        ("relay", SourceMac::Relay),
        ("egress", SourceMac::Egress),
        ("keep", SourceMac::Keep),
    ];
    choice(text, Kind::SourceMac, "a source MAC to choose", WORDS)
}

/// What happens to the frame on this host.
///
/// # Errors
///
/// [`Kind::Local`].
pub fn local(text: &str) -> Result<Local, Problem> {
    const WORDS: &[(&str, Local)] = &[("keep", Local::Keep), ("drop", Local::Drop)];
    choice(text, Kind::Local, "what can happen to a frame here", WORDS)
}

/// A boolean, as YAML 1.2 spells it.
///
/// # Errors
///
/// [`Kind::NotABoolean`].
pub fn boolean(text: &str) -> Result<bool, Problem> {
    match text {
        "true" | "True" | "TRUE" => return Ok(true),
        "false" | "False" | "FALSE" => return Ok(false),
        _ => {}
    }
    let hint = match text.to_ascii_lowercase().as_str() {
        "yes" | "y" | "on" | "1" => "write `true`",
        "no" | "n" | "off" | "0" => "write `false`",
        _ => "`true` or `false` is right",
    };
    let message = format!("{} is no boolean: {hint}", quote(text));
    Err(Problem::new(Kind::NotABoolean, message))
}

/// The name of a relay: letters and digits of ASCII, `-`, `_` and `.`, beginning with a letter
/// or digit, so that it can be an argument, a label and a column.
///
/// # Errors
///
/// [`Kind::NameLength`] and [`Kind::NameCharacters`].
pub fn name(text: &str) -> Result<String, Problem> {
    let length = text.chars().count();
    if !(1..=LONGEST_NAME).contains(&length) {
        let message = format!(
            "the name {} has {length} characters: 1 to {LONGEST_NAME} are right",
            quote(text)
        );
        return Err(Problem::new(Kind::NameLength, message));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let Some(wrong) = text.chars().find(|c| !allowed(*c)) else {
        if text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Ok(text.to_owned());
        }
        let message = format!("the name {} must begin with a letter or digit", quote(text));
        return Err(Problem::new(Kind::NameCharacters, message));
    };
    let message = format!(
        "the name {} contains {}: letters, digits, `-`, `_` and `.` are right",
        quote(text),
        if wrong.is_whitespace() {
            "white space".to_owned()
        } else {
            quote(wrong.encode_utf8(&mut [0; 4]))
        }
    );
    Err(Problem::new(Kind::NameCharacters, message))
}

/// The beginning of the names of links that mcr makes for itself; a number follows.
pub const OWN_LINK: &str = "mcr-fan";

/// A link, by its name.
///
/// # Errors
///
/// [`Kind::LinkLength`], [`Kind::LinkCharacters`] and [`Kind::OwnLink`].
pub fn link(text: &str) -> Result<LinkSelector, Problem> {
    if text.strip_prefix(OWN_LINK).and_then(number).is_some() {
        let message = format!(
            "{} is the name of a link that mcr makes for itself: name one of the links that frames \
             come from and go to",
            quote(text)
        );
        return Err(Problem::new(Kind::OwnLink, message));
    }
    if let Some(name) = LinkName::new(text) {
        return Ok(LinkSelector::Name(name));
    }
    if text.is_empty() || text.len() > LinkName::LONGEST {
        let message = format!(
            "the link name {} has {} bytes: 1 to {} are right",
            quote(text),
            text.len(),
            LinkName::LONGEST
        );
        return Err(Problem::new(Kind::LinkLength, message));
    }
    let hint = match text.split_once(':') {
        Some((link, _)) if LinkName::new(link).is_some() => {
            format!(": what follows the `:` is the label of an address, the link is `{link}`")
        }
        _ => ": names have no white space, `/` or `:`, see `ip link`; a list is `[br0, br1]`"
            .to_owned(),
    };
    let message = format!("no link can have the name {}{hint}", quote(text));
    Err(Problem::new(Kind::LinkCharacters, message))
}

/// A number without a sign or leading zeros; one too large to hold is as large as can be.
fn number(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (canonical && digits).then(|| text.parse().unwrap_or(u64::MAX))
}

/// One of a few words.
fn choice<T: Copy>(
    text: &str,
    kind: Kind,
    what: &str,
    words: &[(&'static str, T)],
) -> Result<T, Problem> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    let guess = nearest(text, known.iter().copied())
        .map_or_else(String::new, |guess| format!(", did you mean `{guess}`?"));
    let message = format!(
        "{} is not {what}{guess}{} {} is right",
        quote(text),
        if guess.is_empty() { ":" } else { "" },
        listed(&known, "or")
    );
    Err(Problem::new(kind, message))
}
