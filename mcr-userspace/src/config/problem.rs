//! The things that can be wrong in a rule file or in the flags of a relay.

use std::fmt::Write as _;

use super::diagnostic::Severity;

/// The most errors, and the most warnings, that are kept; of the others only the number. Nobody
/// reads more, and a broken file may hold one in every value.
const MOST: usize = 1000;
/// The most characters of an offending text that a message repeats.
const LONGEST_QUOTE: usize = 60;

macro_rules! kinds {
    (errors { $($(#[$error_doc:meta])* $error:ident,)* }
     warnings { $($(#[$warning_doc:meta])* $warning:ident,)* }) => {
        /// Which of the things that can be wrong. Each has a sentence of its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[$error_doc])* $error,)*
            $($(#[$warning_doc])* $warning,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$error,)* $(Self::$warning,)*];

            /// How bad it is.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$error => Severity::Error,)*
                    $(Self::$warning => Severity::Warning,)*
                }
            }
        }
    };
}

kinds! {
    errors {
        /// The file is larger than is read.
        TooLarge,
        /// The file isn't UTF-8.
        NotUtf8,
        /// The file isn't YAML.
        Syntax,
        /// A tab where YAML wants spaces.
        Tab,
        /// Lists or mappings nested deeper than any rule needs.
        TooDeep,
        /// More values than are read.
        TooManyValues,
        /// A YAML alias (`*x`).
        Alias,
        /// A YAML tag (`!x`).
        Tag,
        /// A second YAML document in the file.
        SeveralDocuments,
        /// Nothing in the file.
        NothingGiven,
        /// Something else where a mapping belongs.
        NotAMapping,
        /// Something else where a list belongs.
        NotAList,
        /// A mapping or a list where a value belongs.
        NotAValue,
        /// A list within a list.
        NestedList,
        /// A list without entries.
        EmptyList,
        /// A field without a value.
        NoValue,
        /// A mapping's key that is no text.
        KeyNotText,
        /// A field the rule file doesn't have.
        UnknownField,
        /// A field that belongs elsewhere.
        MisplacedField,
        /// A field given twice.
        DuplicateField,
        /// A field that must be there.
        MissingField,
        /// Part of the contract, but not of this version.
        NotInForce,
        /// A version of the rule file other than 1.
        Version,
        /// Not a datapath.
        Datapath,
        /// A relay's name with other characters than it may have.
        NameCharacters,
        /// A relay's name that is empty or too long.
        NameLength,
        /// Two relays of the same name.
        DuplicateName,
        /// A link's name with characters no link can have.
        LinkCharacters,
        /// A link's name that is empty or too long.
        LinkLength,
        /// Both `between` and `from` or `to`.
        FromAndBetween,
        /// A single link in `between`.
        BetweenOneLink,
        /// A relay that can send nowhere.
        NoWayOut,
        /// More egress links than a frame can be copied to.
        TooManyEgresses,
        /// Not an IP address.
        NotAnAddress,
        /// An IPv4 address with leading zeros.
        LeadingZeros,
        /// An address in brackets.
        Brackets,
        /// An address with a port.
        AddressWithPort,
        /// An IPv6 address with the name of a link.
        AddressWithLink,
        /// Several addresses in one value.
        SeveralAddresses,
        /// A MAC address where an IP address belongs.
        MacAddress,
        /// An IPv4 address written as IPv6.
        MappedAddress,
        /// A prefix length that is none.
        PrefixLength,
        /// A prefix with bits set beyond its length.
        HostBits,
        /// A group that isn't multicast.
        GroupNotMulticast,
        /// The broadcast address as a group.
        GroupIsBroadcast,
        /// A source that is a multicast group.
        SourceIsMulticast,
        /// A source no frame between links comes from.
        SourceUnusable,
        /// A source of a family no group is of.
        SourceWithoutGroup,
        /// A group of a family no source is of, where there are sources.
        GroupWithoutSource,
        /// Port 0.
        PortZero,
        /// A port above 65535.
        PortTooLarge,
        /// Not a port.
        NotAPort,
        /// A range of ports that ends before it begins.
        EmptyRange,
        /// Not a TTL.
        NotATtl,
        /// A TTL of 0, or above 255.
        TtlOutOfRange,
        /// Not a source MAC address to choose from.
        SourceMac,
        /// Not what can happen to a frame on this host.
        Local,
        /// Neither `true` nor `false`.
        NotABoolean,
        /// Not a protocol.
        Protocol,
        /// Not a VLAN.
        Vlan,
        /// Not where a socket can be.
        SocketPath,
        /// `local: drop` on packet sockets.
        DropOnAfPacket,
        /// How many errors are not shown.
        MoreErrors,
    }
    warnings {
        /// A value that is listed twice.
        DuplicateValue,
        /// A relay that is the same as another.
        SameRelay,
        /// A link's name that looks like something else.
        OddLinkName,
        /// The group of a routing protocol.
        RoutingProtocol,
        /// The port of a protocol that answers for its own segment.
        DhcpPort,
        /// A source-specific group without sources.
        SsmWithoutSources,
        /// A group whose frames never leave a host.
        ScopeTooSmall,
        /// How many warnings are not shown.
        MoreWarnings,
    }
}

/// Something that is wrong, wherever it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// Which of the things that can be wrong.
    pub kind: Kind,
    /// What was found, with the offending text, and what would be right: one sentence.
    pub message: String,
}

impl Problem {
    /// A problem of this kind.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// Something of the contract that this version does not do yet.
    pub(super) fn not_in_force(what: &str) -> Self {
        Self::new(
            Kind::NotInForce,
            format!("{what} is part of the rule file, but not in force in this version yet"),
        )
    }
}

/// What was found wrong so far, each with where: a span of a file or the name of a flag.
#[derive(Debug)]
pub(super) struct Problems<W> {
    kept: Vec<(W, Problem)>,
    errors: Count<W>,
    warnings: Count<W>,
}

#[derive(Debug)]
struct Count<W> {
    seen: usize,
    first_dropped: Option<W>,
}

impl<W> Default for Problems<W> {
    fn default() -> Self {
        let count = || Count {
            seen: 0,
            first_dropped: None,
        };
        Self {
            kept: Vec::new(),
            errors: count(),
            warnings: count(),
        }
    }
}

impl<W: Copy> Problems<W> {
    /// Notes a problem.
    pub(super) fn push(&mut self, at: W, problem: Problem) {
        let count = match problem.kind.severity() {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        count.seen += 1;
        if count.seen <= MOST {
            self.kept.push((at, problem));
        } else {
            count.first_dropped.get_or_insert(at);
        }
    }

    /// Notes a problem of this kind.
    pub(super) fn add(&mut self, at: W, kind: Kind, message: impl Into<String>) {
        self.push(at, Problem::new(kind, message));
    }

    /// The value, or nothing and a problem more.
    pub(super) fn take<T>(&mut self, at: W, value: Result<T, Problem>) -> Option<T> {
        value.map_err(|problem| self.push(at, problem)).ok()
    }

    /// Whether an error is among them.
    pub(super) fn has_errors(&self) -> bool {
        self.errors.seen > 0
    }

    /// All of them, in the order they were found.
    pub(super) fn finish(mut self) -> Vec<(W, Problem)> {
        if let Some(at) = self.errors.first_dropped {
            let more = format!("{} more errors are not shown", self.errors.seen - MOST);
            self.kept.push((at, Problem::new(Kind::MoreErrors, more)));
        }
        if let Some(at) = self.warnings.first_dropped {
            let more = format!("{} more warnings are not shown", self.warnings.seen - MOST);
            self.kept.push((at, Problem::new(Kind::MoreWarnings, more)));
        }
        self.kept
    }
}

/// The offending text as messages show it: in backquotes, not longer than a line, without
/// anything a terminal would obey.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::from("`");
    for (count, c) in text.chars().enumerate() {
        if count == LONGEST_QUOTE {
            quoted.push('…');
            break;
        }
        if c.is_control() {
            let _ = write!(quoted, "{}", c.escape_default());
        } else {
            quoted.push(c);
        }
    }
    quoted.push('`');
    quoted
}

/// Several words as a sentence lists them.
pub(super) fn listed(words: &[&str], last: &str) -> String {
    match words {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [first @ .., end] => {
            let first: Vec<_> = first.iter().map(|word| format!("`{word}`")).collect();
            format!("{} {last} `{end}`", first.join(", "))
        }
    }
}

/// The known word that was probably meant.
pub(super) fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    /// Below this, a suggestion is more often wrong than right.
    const SIMILAR: f64 = 0.75;
    // The comparison takes time with the square of the length.
    if word.len() > LONGEST_QUOTE {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
