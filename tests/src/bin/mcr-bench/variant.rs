//! Who makes the copies: `mcr`, or a yardstick.

use std::{fmt, str::FromStr};

use anyhow::{Error, Result, bail};

/// What `mcr` is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Subject {
    /// `--datapath`.
    pub(crate) datapath: Datapath,
    /// Whether the host still sees frames: `local`.
    pub(crate) keep: bool,
    /// What is different in copies.
    pub(crate) edits: Edits,
    /// Whether the group is joined.
    pub(crate) join: bool,
}

/// Of the rule file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Datapath {
    Auto,
    Tc,
    Xdp,
    AfPacket,
}

/// What is different in copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Edits {
    /// What the default rule does: the same MAC addresses on all.
    None,
    /// The source MAC address, that of each egress link.
    Mac,
    /// The time to live, another on each.
    Ttl,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Variant {
    /// The generator, and the host's stack that throws frames away.
    Nothing,
    /// The generator, and a program that throws frames away.
    Drop,
    /// `tc` with u32 and mirred. Without `keep` the last copy is the frame itself.
    Mirred { keep: bool, edits: Edits },
    /// nftables `dup` at the netdev hook.
    Nft,
    /// Kernel multicast routing, set up by smcroute.
    Smcroute,
    /// A copier by packet sockets that looks at nothing.
    Plain,
    /// A program for TC of a few instructions.
    Bare { keep: bool, edits: Edits },
    /// A program for XDP of a few instructions; with MAC addresses written or not.
    BareXdp { edits: Edits, generic: bool },
    /// `mcr`.
    Mcr(Subject),
}

impl Variant {
    /// Whether the kernel makes copies where frames arrive, without a process.
    pub(crate) fn in_kernel(self) -> bool {
        match self {
            Self::Plain => false,
            Self::Mcr(subject) => subject.datapath != Datapath::AfPacket,
            _ => true,
        }
    }

    /// What happens without it to frames it takes or leaves to the host.
    pub(crate) fn idle(self) -> Self {
        match self {
            Self::Mirred { keep: true, .. } | Self::Bare { keep: true, .. } | Self::Nft => {
                Self::Nothing
            }
            Self::Mcr(subject) if subject.keep => Self::Nothing,
            _ => Self::Drop,
        }
    }

    /// Whether it makes copies.
    pub(crate) fn copies(self) -> bool {
        !matches!(self, Self::Nothing | Self::Drop)
    }
}

/// Words of a name after the first one.
struct Words<'a>(Vec<&'a str>);

impl Words<'_> {
    fn take(&mut self, word: &str) -> bool {
        let place = self.0.iter().position(|other| *other == word);
        place.map(|place| self.0.remove(place)).is_some()
    }

    fn edits(&mut self) -> Edits {
        if self.take("mac") {
            Edits::Mac
        } else if self.take("ttl") {
            Edits::Ttl
        } else {
            Edits::None
        }
    }
}

impl FromStr for Variant {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let mut words = name.split('-');
        let first = words.next().unwrap_or_default();
        let mut rest = Words(words.collect());
        let mcr = |datapath, rest: &mut Words| {
            Self::Mcr(Subject {
                datapath,
                keep: !rest.take("drop"),
                edits: rest.edits(),
                join: rest.take("joined"),
            })
        };
        let variant = match first {
            "nothing" => Self::Nothing,
            "drop" => Self::Drop,
            "mirred" => Self::Mirred {
                keep: !rest.take("drop"),
                edits: rest.edits(),
            },
            "nft" => Self::Nft,
            "smcroute" => Self::Smcroute,
            "plain" => Self::Plain,
            "bare" if rest.take("xdp") => {
                let generic = rest.take("generic");
                Self::BareXdp {
                    edits: rest.edits(),
                    generic,
                }
            }
            "bare" => Self::Bare {
                keep: !rest.take("drop"),
                edits: rest.edits(),
            },
            "auto" => mcr(Datapath::Auto, &mut rest),
            "tc" => mcr(Datapath::Tc, &mut rest),
            "xdp" => mcr(Datapath::Xdp, &mut rest),
            "afpacket" => mcr(Datapath::AfPacket, &mut rest),
            _ => bail!("{name}: no such variant; {KNOWN}"),
        };
        if let [unknown, ..] = rest.0[..] {
            bail!("{name}: {unknown} means nothing here; {KNOWN}");
        }
        Ok(variant)
    }
}

/// All names, for messages and help.
pub(crate) const KNOWN: &str = "there are nothing, drop, nft, smcroute, plain; mirred and bare, with \
    -drop (the last copy is the frame itself), -mac or -ttl (different in each copy); bare-xdp, \
    with -generic, -mac (the same on all copies); and mcr: auto, tc, xdp, afpacket, with -drop, -mac \
    or -ttl, -joined";

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, drop, edits, last) = match self {
            Self::Nothing => ("nothing", false, Edits::None, ""),
            Self::Drop => ("drop", false, Edits::None, ""),
            Self::Nft => ("nft", false, Edits::None, ""),
            Self::Smcroute => ("smcroute", false, Edits::None, ""),
            Self::Plain => ("plain", false, Edits::None, ""),
            Self::Mirred { keep, edits } => ("mirred", !keep, *edits, ""),
            Self::Bare { keep, edits } => ("bare", !keep, *edits, ""),
            Self::BareXdp {
                edits,
                generic: false,
            } => ("bare-xdp", false, *edits, ""),
            Self::BareXdp {
                edits,
                generic: true,
            } => ("bare-xdp-generic", false, *edits, ""),
            Self::Mcr(subject) => (
                subject.datapath.name(),
                !subject.keep,
                subject.edits,
                if subject.join { "-joined" } else { "" },
            ),
        };
        let drop = if drop { "-drop" } else { "" };
        let edits = match edits {
            Edits::None => "",
            Edits::Mac => "-mac",
            Edits::Ttl => "-ttl",
        };
        write!(f, "{first}{drop}{edits}{last}")
    }
}

impl Datapath {
    /// As the command line of `mcr` names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tc => "tc",
            Self::Xdp => "xdp",
            Self::AfPacket => "afpacket",
        }
    }
}
