//! What must hold between a relay and the datapath that is asked for by name.

use super::Draft;
use crate::config::{
    model::{DatapathChoice, Local},
    problem::{Kind, Problems},
    xdp,
};

impl<W: Copy> Draft<W> {
    /// Notes what this datapath can't do.
    pub(super) fn check_datapath(&self, datapath: DatapathChoice, problems: &mut Problems<W>) {
        match datapath {
            DatapathChoice::AfPacket => self.check_packet_sockets(problems),
            DatapathChoice::Xdp => self.check_xdp(problems),
            DatapathChoice::Auto | DatapathChoice::Tc => {}
        }
    }

    fn check_packet_sockets(&self, problems: &mut Problems<W>) {
        if let Some((at, Local::Drop)) = self.local {
            problems.add(
                at,
                Kind::DropOnAfPacket,
                "`drop` is not possible with `datapath: afpacket`: a packet socket gets a copy and \
                 can't keep a frame from the host, use `datapath: tc`",
            );
        }
    }

    fn check_xdp(&self, problems: &mut Problems<W>) {
        match self.local {
            None => problems.add(self.at, Kind::KeepOnXdp, xdp::KEEP),
            Some((at, Local::Keep)) => problems.add(at, Kind::KeepOnXdp, xdp::KEEP),
            Some((_, Local::Drop)) => {}
        }
        if let Some((at, _)) = self.limit {
            problems.add(at, Kind::LimitOnXdp, xdp::LIMIT);
        }
        let ways = self.ways.out().iter();
        for (at, _) in ways.filter_map(|(_, way)| way.edits.vlan) {
            problems.add(at, Kind::VlanOnXdp, xdp::VLAN);
        }
    }
}
