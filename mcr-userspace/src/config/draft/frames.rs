//! What must hold between the values of `frames`, and between them and other fields.

use super::{Draft, FramesDraft};
use crate::config::{
    model::{Frames, MacPrefix},
    problem::{Kind, Problems},
};

/// What stands for `mac` if it isn't given: universally administered groups, and the broadcast
/// address.
const ANY_GROUP: [MacPrefix; 2] = [
    MacPrefix {
        address: [0x01, 0, 0, 0, 0, 0],
        length: 8,
    },
    MacPrefix {
        address: [0xff; 6],
        length: 48,
    },
];

/// Addresses that are made of IP groups (RFC 1112 section 6.4, RFC 2464 section 7).
const OF_IP: [MacPrefix; 2] = [
    MacPrefix {
        address: [0x01, 0x00, 0x5e, 0, 0, 0],
        length: 25,
    },
    MacPrefix {
        address: [0x33, 0x33, 0, 0, 0, 0],
        length: 16,
    },
];

impl<W: Copy> FramesDraft<W> {
    /// Which frames, if nothing is wrong.
    pub(super) fn into_model(self) -> Frames {
        let macs = if self.macs.at.is_none() {
            ANY_GROUP.into()
        } else {
            self.macs.values().collect()
        };
        let types = self.ethertypes.values();
        Frames {
            macs,
            ethertypes: types.map(|ethertype| ethertype.number).collect(),
        }
    }

    fn check(&self, problems: &mut Problems<W>) {
        for (at, mac) in &self.macs.items {
            if OF_IP.iter().any(|of_ip| of_ip.contains(mac)) {
                let message = format!(
                    "`{mac}` is made of IP groups, but `frames` takes no IP: name the groups in \
                     `groups`"
                );
                problems.add(*at, Kind::MacOfIp, message);
            }
        }
        let contains = |wide: &MacPrefix, narrow: &MacPrefix| wide.contains(narrow);
        self.macs.note_overlaps(contains, problems);
        for (at, ethertype) in &self.ethertypes.items {
            if let Some((name, number)) = ethertype.instead {
                let message = format!(
                    "`{number:x}` is read as a decimal number, {ethertype}: if {name} is meant, \
                     write `0x{number:x}`"
                );
                problems.add(*at, Kind::DecimalEthertype, message);
            }
        }
    }
}

impl<W: Copy> Draft<W> {
    /// Notes what is wrong with `frames`, if they are given.
    pub(super) fn check_frames(&self, problems: &mut Problems<W>) {
        let Some(frames) = &self.frames else {
            return;
        };
        frames.check(problems);
        for (name, at) in [
            ("groups", self.groups.at),
            ("sources", self.sources.at),
            ("ports", self.ports.at),
            ("protocol", self.protocols.at),
        ] {
            if let Some(at) = at {
                let message = format!(
                    "`{name}` is about IP packets, but `frames` takes what is not IP: make a \
                     relay of its own for each"
                );
                problems.add(at, Kind::FramesAndPackets, message);
            }
        }
    }
}
