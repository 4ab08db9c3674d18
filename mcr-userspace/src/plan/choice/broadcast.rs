//! When the kernel can make all copies at once, from a link of ours (`datapath/ebpf/fan`).
//!
//! There a frame passes the devices' queues, egress filters and the last look of the kernel at what a
//! device can't do by itself (`validate_xmit_skb` in `net/core/dev.c`), and all copies share their
//! bytes. So it is right where a device has no queue and hands frames on as they are, and
//! where all copies are alike.
//!
//! It makes them a moment later, when what marks frames of our own on their way out is gone
//! (`mcr_copying`). What a tunnel makes of such a copy looks like a frame of the host, so that nobody may
//! want those.

use std::collections::BTreeMap;

use mcr_common::table::{Egress, VlanEdit};

use super::{Job, Replicator, unheard};
use crate::plan::world::{LinkState, World};

/// From how many copies on they are made at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worth(pub usize);

impl Default for Worth {
    /// From here on it takes a tenth less time, whether the host gets the frame as well or not. It is about
    /// the same for three copies, and more for two.
    fn default() -> Self {
        Self(5)
    }
}

/// Devices that hand a frame on as it is, with whatever is left to be done to its checksum.
const KINDS: [&str; 7] = ["veth", "bridge", "macvlan", "dummy", "bond", "team", "vlan"];

/// Whether all copies of a job can be made at once.
///
/// # Errors
///
/// Why not, as a sentence without an end.
pub(super) fn can(world: &World, job: &Job<'_>) -> Result<Replicator, String> {
    let Worth(least) = world.worth;
    let count = job.egresses.len();
    if count < least {
        return Err(format!(
            "faster from {least} copies on, and these are {count}"
        ));
    }
    if !world.no_fan.is_empty() {
        return Err(world.no_fan.clone());
    }
    unheard(world)?;
    let named = |egress: &Egress| world.links.get(&egress.ifindex());
    alike(job.egresses).map_err(|(one, other)| {
        let [one, other] = [one, other].map(|egress| name(named(egress), egress));
        format!("copies for {one} and {other} differ")
    })?;
    for egress in job.egresses {
        fits(egress, named(egress))?;
    }
    Ok(Replicator::Broadcast)
}

/// The egress that stands for all members of the set `id`, which are alike.
pub(in crate::plan) fn standing_for(id: u32, members: &[Egress]) -> Option<Egress> {
    let mtu = members.iter().map(Egress::mtu).min()?;
    members.first().map(|first| first.identity().fan(id, mtu))
}

/// Whether each link is named once, and all copies are the same bytes, of at most the same length:
/// those that one link took and another not would go another way, and overtake others.
fn alike(members: &[Egress]) -> Result<(), (&Egress, &Egress)> {
    let Some(first) = members.first() else {
        return Ok(());
    };
    let edits = |egress: &Egress| (egress.identity().at(0), egress.mtu());
    if let Some(other) = members.iter().find(|other| edits(other) != edits(first)) {
        return Err((first, other));
    }
    let mut links = BTreeMap::new();
    for member in members {
        if let Some(other) = links.insert(member.ifindex(), member) {
            return Err((other, member));
        }
    }
    Ok(())
}

/// Whether copies can be sent to a link in this way.
fn fits(egress: &Egress, link: Option<&LinkState>) -> Result<(), String> {
    let name = name(link, egress);
    if egress.is_unicast() {
        return Err(format!("copies for {name} go to one station"));
    }
    if egress.vlan_edit() != VlanEdit::Keep {
        return Err(format!("copies for {name} get another VLAN tag"));
    }
    if !egress.is_up() {
        return Err(format!("{name} is down"));
    }
    let offers = link.map(|link| &link.offers);
    let device = offers.map_or("", |offers| offers.device.as_str());
    if !KINDS.contains(&device) {
        let device = if device.is_empty() { "card" } else { device };
        return Err(format!(
            "{name} is a {device}, for which the kernel finishes frames on their way there only"
        ));
    }
    // What it can't do with fragments of memory makes no difference: generic XDP has put each frame in
    // one piece.
    if !offers.is_some_and(|offers| offers.takes_unfinished) {
        return Err(format!(
            "{name} has checksums finished before (`ethtool -K {name} tx on`)"
        ));
    }
    if offers.is_some_and(|offers| offers.queues) {
        return Err(format!(
            "frames for {name} wait in a queue or pass filters, which would be left out"
        ));
    }
    Ok(())
}

fn name(link: Option<&LinkState>, egress: &Egress) -> String {
    match link {
        Some(link) => link.name.clone(),
        None => format!("link {}", egress.ifindex()),
    }
}

#[cfg(test)]
mod tests {
    use mcr_common::table::HopEdit;

    use super::*;
    use crate::{config::parse_bytes, plan::world::Offers};

    const MARK: [u8; 6] = [2, 0x6d, 0, 0, 0, 1];

    fn link(index: u32) -> LinkState {
        LinkState {
            name: format!("e{index}"),
            offers: Offers {
                device: "veth".to_owned(),
                takes_unfinished: true,
                ..Offers::default()
            },
            up: true,
            ..LinkState::default()
        }
    }

    fn egress(index: u32) -> Egress {
        Egress::new(index, 1500, Some(MARK), HopEdit::Keep)
    }

    /// The answer for links with these numbers, after changes of the world and of the egresses.
    fn answer(
        count: u32,
        change: impl FnOnce(&mut World, &mut Vec<Egress>),
    ) -> Result<Replicator, String> {
        let mut world = World {
            links: (1..=count).map(|index| (index, link(index))).collect(),
            ..World::default()
        };
        let mut egresses: Vec<_> = (1..=count).map(egress).collect();
        change(&mut world, &mut egresses);
        let job = Job {
            ingress: 1000,
            egresses: &egresses,
            drop_local: false,
            limited: false,
        };
        can(&world, &job)
    }

    #[test]
    fn it_is_taken_from_some_copies_on() {
        let Worth(least) = Worth::default();
        let least = u32::try_from(least).unwrap();
        for (count, is) in [(least, true), (least - 1, false), (64, true)] {
            let answer = answer(count, |_, _| {});
            assert_eq!(answer.is_ok(), is, "{count} {answer:?}");
        }
    }

    #[test]
    fn it_is_not_taken_where_it_would_not_be_right() {
        type Edit = fn(&mut World, &mut Vec<Egress>);
        fn offers(world: &mut World, change: impl FnOnce(&mut Offers)) {
            world.links.change(7, |link| change(&mut link.offers));
        }
        let cases: [(&str, Edit); 14] = [
            ("the moon is full", |world, _| {
                world.no_fan = "the moon is full".to_owned();
            }),
            ("relay b has `host_frames`", |world, _| {
                let relay = |name, more| {
                    format!("{{name: {name}, from: a, to: b, groups: 239.1.1.1{more}}}")
                };
                let relays = [relay("a", ""), relay("b", ", host_frames: true")];
                let rules = format!("{{version: 1, relays: [{}]}}", relays.join(", "));
                world.relays = parse_bytes(rules.as_bytes()).unwrap().rules.relays;
            }),
            ("copies for e1 and e7 differ", |_, egresses| {
                egresses[6] = egresses[6].dscp(10);
            }),
            ("copies for e1 and e7 differ", |_, egresses| {
                egresses[6] = Egress::new(7, 1400, Some(MARK), HopEdit::Keep);
            }),
            ("copies for e1 and e7 differ", |_, egresses| {
                egresses[6] = Egress::new(7, 1500, None, HopEdit::Keep);
            }),
            ("copies for e3 and e3 differ", |_, egresses| {
                egresses[6] = egress(3);
            }),
            ("copies for e1 go to one station", |_, egresses| {
                let to = |egress: &mut Egress| {
                    *egress = egress.unicast("10.0.0.1".parse().unwrap(), None);
                };
                egresses.iter_mut().for_each(to);
            }),
            ("copies for e1 get another VLAN tag", |_, egresses| {
                let tag = |egress: &mut Egress| *egress = egress.vlan(VlanEdit::Pop);
                egresses.iter_mut().for_each(tag);
            }),
            ("e7 is down", |_, egresses| {
                egresses[6] = egresses[6].up(false);
            }),
            ("e7 is a tun, for which", |world, _| {
                offers(world, |offers| offers.device = "tun".to_owned());
            }),
            ("e7 is a card, for which", |world, _| {
                offers(world, |offers| offers.device.clear());
            }),
            ("e7 has checksums finished before (`eth", |world, _| {
                offers(world, |offers| offers.takes_unfinished = false);
            }),
            ("frames for e7 wait in a queue", |world, _| {
                offers(world, |offers| offers.queues = true);
            }),
            ("link 7 is a card, for which", |world, _| {
                world.links = (1..7).map(|index| (index, link(index))).collect();
            }),
        ];
        for (begin, change) in cases {
            let answer = answer(12, change);
            let why = answer.expect_err(begin);
            assert!(why.starts_with(begin), "{why:?} is not {begin:?}");
        }
    }

    #[test]
    fn one_egress_stands_for_all_as_far_as_each_goes() {
        let members = [egress(1).up(false), egress(2)];
        let fan = standing_for(5, &members).unwrap();
        assert!(fan.is_fan() && fan.is_up());
        assert_eq!((fan.ifindex(), fan.mtu()), (0, 1500));
        assert_eq!(fan.source_mac(), Some(MARK));
        assert_eq!(standing_for(5, &[]), None);
        let other = standing_for(6, &members).unwrap();
        assert_ne!(fan.identity(), other.identity());
    }
}
