//! The decision tree from a group to a slot.

/// Where a lookup goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Target(u32);

/// What a [`Target`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// Nobody asks for the frame.
    Nowhere,
    /// This slot, whatever the frame carries.
    Slot(u32),
    /// This slot for UDP but DHCP, nothing for the rest: what most relays ask for.
    Udp(u32),
    /// The source decides, at the [`Node`] of this id.
    Source(u32),
    /// Protocol and port decide, by the [`super::Ports`] of this id.
    Ports(u32),
}

const KIND: u32 = 29;
const ID: u32 = (1 << KIND) - 1;
const SLOT: u32 = 1;
const UDP: u32 = 2;
const SOURCE: u32 = 3;
const PORTS: u32 = 4;

impl Target {
    /// Nobody asks for the frame.
    pub const NOWHERE: Self = Self(0);

    /// A target; ids are below 2^29.
    #[must_use]
    pub const fn new(way: Way) -> Self {
        let (kind, id) = match way {
            Way::Nowhere => return Self::NOWHERE,
            Way::Slot(id) => (SLOT, id),
            Way::Udp(id) => (UDP, id),
            Way::Source(id) => (SOURCE, id),
            Way::Ports(id) => (PORTS, id),
        };
        Self(kind << KIND | id & ID)
    }

    /// What it says.
    #[must_use]
    #[inline(always)]
    pub const fn way(self) -> Way {
        let id = self.0 & ID;
        match self.0 >> KIND {
            SLOT => Way::Slot(id),
            UDP => Way::Udp(id),
            SOURCE => Way::Source(id),
            PORTS => Way::Ports(id),
            _ => Way::Nowhere,
        }
    }

    /// As a word, the form in which it passes through the registers of a call.
    #[must_use]
    #[inline(always)]
    pub const fn to_word(self) -> u32 {
        self.0
    }

    /// From the word of [`Self::to_word`].
    #[must_use]
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }
}

/// Which entries exist at a place of the tree, so that looking for absent ones costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Branches(u8);

impl Branches {
    /// None.
    pub const NONE: Self = Self(0);
    /// Single addresses.
    pub const EXACT: Self = Self(1);
    /// Prefixes.
    pub const PREFIX: Self = Self(2);

    /// Whether any of these is among them.
    #[must_use]
    #[inline(always)]
    pub const fn any(self, branches: Self) -> bool {
        self.0 & branches.0 != 0
    }

    /// These and those.
    #[must_use]
    pub const fn with(self, branches: Self) -> Self {
        Self(self.0 | branches.0)
    }
}

/// Where the frames of one VLAN of an ingress link begin their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Scope {
    /// The node in the keys of its groups.
    pub node: u32,
    /// Which IPv4 groups there are.
    pub v4: Branches,
    /// Which IPv6 groups there are.
    pub v6: Branches,
    /// Which frames that are not IP: [`Branches::EXACT`] if types are named, and
    /// [`Branches::PREFIX`] if any type is asked for.
    pub frames: Branches,
    /// Zero.
    pub padding: u8,
}

const _: () = assert!(size_of::<Scope>() == 8);

impl Scope {
    /// The same scope, with the branches of another one beside its own.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self {
            v4: self.v4.with(other.v4),
            v6: self.v6.with(other.v6),
            frames: self.frames.with(other.frames),
            ..self
        }
    }
}

/// A place where the source decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Node {
    /// For sources nobody names.
    pub otherwise: Target,
    /// Which sources are named.
    pub branches: Branches,
    /// Zero.
    pub padding: [u8; 3],
}

const _: () = assert!(size_of::<Node>() == 8);

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

    use super::{Node, Scope, Target};

    // SAFETY: a plain integer.
    unsafe impl aya::Pod for Target {}
    // SAFETY: repr(C), every field plain integers, and the size assertions above leave no room
    // for padding that is not a field.
    unsafe impl aya::Pod for Scope {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Node {}
}

#[cfg(test)]
mod tests {
    use super::{Target, Way};

    #[test]
    fn a_target_says_what_it_was_made_of() {
        for id in [0, 1, (1 << 29) - 1] {
            for way in [
                Way::Nowhere,
                Way::Slot(id),
                Way::Udp(id),
                Way::Source(id),
                Way::Ports(id),
            ] {
                let target = Target::new(way);
                assert_eq!(target.way(), way);
                assert_eq!(Target::from_word(target.to_word()), target);
            }
        }
        assert_eq!(Target::default(), Target::NOWHERE);
    }
}
