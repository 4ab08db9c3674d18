//! What `mcr show` shows. The names of the fields are those of its JSON, and stay.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::daemon::{Counted, Ingress, Relayed, Report};

/// One of a few words; of another mcr, any.
pub type Word = Cow<'static, str>;

/// What an instance does now: the parts that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Show {
    /// The name of the instance.
    pub instance: String,
    /// Its process.
    pub pid: u32,
    /// The version of its mcr.
    pub mcr: String,
    /// For how long it has run, in seconds.
    pub uptime: u64,
    /// The rule file; none if the relay was given by flags.
    pub rule_file: Option<String>,
    /// The source address of copies with `source_mac: relay`.
    pub relay_mac: String,
    /// Who makes the copies: `tc (tcx)`, `tc (clsact)` or `afpacket`.
    pub datapath: String,
    /// At how many links XDP takes in frames, before all others.
    #[serde(default)]
    pub xdp_links: usize,
    /// The relays, in the order of the rule file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relays: Option<Vec<RelayView>>,
    /// What frames are looked up in, by ingress and group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<RouteView>>,
    /// The links that relays name, those that exist by index and then those that do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Vec<LinkView>>,
    /// The groups that relays ask to be joined, by link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<GroupView>>,
    /// Everything counted since the start, also of relays and links that are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Report>,
}

/// A relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayView {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: RelayCondition,
    /// Links that do not exist; it works with the others, if there are enough.
    pub waits_for: Vec<String>,
    /// Why it is refused, why some of its links are not used, or why a datapath that is demanded can't
    /// serve it, each a sentence.
    pub reasons: Vec<String>,
    /// What may not be meant, each a sentence.
    pub warnings: Vec<String>,
    /// What it has done: `frames`, `bytes`, `expected`, `limited`.
    #[serde(flatten)]
    pub counted: Relayed,
}

/// How a relay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelayCondition {
    /// Frames can pass from an ingress to an egress link at least.
    InForce,
    /// None can, until links of `waits_for` appear.
    Waiting,
    /// None can, for `reasons`.
    Refused,
}

/// What happens to the frames of a group, and of a source and ports where given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteView {
    /// The group: an address or a prefix, of IP or, of frames that are not IP, of MAC addresses.
    pub group: String,
    /// The sources: an address or a prefix; none: all that no other route of the group has.
    pub source: Option<String>,
    /// `udp`, `any` (but control traffic), numbers of IP protocols, or an ethertype.
    pub protocol: Word,
    /// The UDP destination ports; none: any.
    pub ports: Option<String>,
    /// The tag frames carry: `untagged`, a VLAN ID, or `other` for those no other route has.
    pub vlan: Word,
    /// The link they arrive on.
    pub ingress: String,
    /// Whether the host itself sends them there, instead.
    pub from_host: bool,
    /// The relays that match.
    pub relays: Vec<String>,
    /// What happens to the frame on this host: `keep` or `drop`.
    pub local: Word,
    /// Where copies go, as far as no relay is over its limit.
    pub egresses: Vec<EgressView>,
}

/// One way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressView {
    /// The link.
    pub link: String,
    /// Who makes the copies: `xdp`, or else as [`Show::datapath`].
    pub datapath: Word,
    /// How they are made: the label of a [`Replicator`](crate::plan::Replicator).
    pub replicator: Word,
    /// Why not in a faster way, as a sentence; none: there is no faster one.
    pub reason: Option<String>,
}

/// A link that a relay names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    /// Its name; of a link that is missing, as the relay has it.
    pub name: String,
    /// Its alternative names.
    pub alternative_names: Vec<String>,
    /// Its interface index; none if it is missing.
    pub ifindex: Option<u32>,
    /// How it is.
    pub state: LinkCondition,
    /// Why frames do not pass, as a sentence.
    pub reason: Option<String>,
    /// Its own address.
    pub mac: Option<String>,
    /// The largest IP packet it takes, in bytes.
    pub mtu: Option<u32>,
    /// Names of the relays that name it.
    pub relays: Vec<String>,
    /// What may not be meant, each a sentence.
    pub warnings: Vec<String>,
    /// Who takes in its frames, as [`Show::datapath`], with `xdp + ` or `xdp (generic) + ` where XDP does
    /// so before; none: nobody.
    pub attached: Option<String>,
    /// What has happened to frames that arrived; none if no relay takes in its frames.
    pub ingress: Option<Ingress>,
    /// Copies sent; none if no relay sends here.
    pub egress: Option<Counted>,
}

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkCondition {
    /// It is there and up.
    Up,
    /// It is there, but was not brought up, or has no carrier.
    Down,
    /// It does not exist now.
    Missing,
    /// It exists, but can't be used.
    Unusable,
}

/// A group to be joined on a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// The group; `all` for a link that takes in frames to any group.
    pub group: String,
    /// The link.
    pub link: String,
    /// The protocol that is spoken, as IGMPv3; none where none says so.
    pub version: Option<Word>,
    /// The sources joined for; empty: any.
    pub sources: Vec<String>,
    /// How it is.
    pub state: GroupCondition,
    /// Why it could not be joined.
    pub reason: Option<String>,
}

/// How a membership is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupCondition {
    /// Routers and switches are told.
    Joined,
    /// It could not be had; it is tried again when links or relays change.
    Failed,
}
