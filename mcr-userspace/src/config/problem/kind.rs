//! Which things can be wrong.

use crate::config::diagnostic::Severity;

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
        /// The name of a link of mcr's own.
        OwnLink,
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
        /// A prefix where a single address belongs.
        NotOneAddress,
        /// A group that isn't multicast.
        GroupNotMulticast,
        /// A prefix that holds multicast groups and other addresses.
        GroupPrefixTooWide,
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
        /// Copies addressed to what is no station.
        NotUnicast,
        /// Port 0.
        PortZero,
        /// A port above 65535.
        PortTooLarge,
        /// Not a port.
        NotAPort,
        /// A range of ports that ends before it begins.
        EmptyRange,
        /// A range of ports where one port belongs.
        NotOnePort,
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
        /// A VLAN ID that no frame can have.
        VlanOutOfRange,
        /// `any` beside others.
        AnyAmongOthers,
        /// Not a DSCP.
        NotADscp,
        /// A DSCP above 63.
        DscpOutOfRange,
        /// Not a limit.
        NotALimit,
        /// A limit that nothing passes.
        LimitZero,
        /// A limit that is none.
        LimitTooLarge,
        /// Not how many of something a table holds.
        NotACount,
        /// A table without entries, or larger than it can be.
        CountOutOfRange,
        /// Not a MAC address.
        NotAMac,
        /// The length of a MAC prefix that is none.
        MacPrefixLength,
        /// A MAC address of a single station.
        MacNotGroup,
        /// A MAC prefix with bits set beyond its length.
        MacHostBits,
        /// Not an Ethernet type.
        NotAnEthertype,
        /// A number that is a length in an Ethernet header, not a type, or too large for both.
        EthertypeOutOfRange,
        /// The Ethernet type of IP.
        EthertypeOfIp,
        /// The Ethernet type of a VLAN tag.
        EthertypeOfTag,
        /// The Ethernet type of ARP.
        EthertypeOfArp,
        /// Both `frames` and a field about IP packets.
        FramesAndPackets,
        /// `broadcast` of any port.
        BroadcastWithoutPorts,
        /// Ports of another protocol than UDP.
        PortsNeedUdp,
        /// An edit of UDP datagrams where other protocols are taken too.
        EditNeedsUdp,
        /// An edit of IP packets where frames are taken that are none.
        EditOfFrames,
        /// A new group of another family than the groups.
        GroupEditFamily,
        /// A new group whose prefix isn't as long as that of the groups.
        GroupEditLength,
        /// A new group for several entries of `groups`.
        GroupEditSeveral,
        /// A new source of another family than a group.
        SourceEditFamily,
        /// Both a new group and a station in its stead.
        UnicastWithGroup,
        /// A station of another family than a group.
        UnicastFamily,
        /// A gateway without a station behind it.
        GatewayWithoutUnicast,
        /// A gateway of another family than the station behind it.
        GatewayFamily,
        /// Not where a socket can be.
        SocketPath,
        /// `local: drop` on packet sockets.
        DropOnAfPacket,
        /// `local: keep` where XDP is demanded.
        KeepOnXdp,
        /// A limit where XDP is demanded.
        LimitOnXdp,
        /// An edit of the VLAN tag where XDP is demanded.
        VlanOnXdp,
        /// How many errors are not shown.
        MoreErrors,
    }
    warnings {
        /// A value that is listed twice.
        DuplicateValue,
        /// A value that another one beside it takes in.
        Overlap,
        /// A relay that is the same as another.
        SameRelay,
        /// A link's name that looks like something else.
        OddLinkName,
        /// The group of a routing protocol.
        RoutingProtocol,
        /// The groups of routing protocols within a prefix.
        RoutingProtocolInPrefix,
        /// A protocol by which a segment is managed, of any group of a prefix.
        ControlProtocol,
        /// A prefix too wide to join its groups one by one.
        WideJoin,
        /// Frames other than IP to an address that only IP is sent to.
        MacOfIp,
        /// A number that is likely to be hexadecimal.
        DecimalEthertype,
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
