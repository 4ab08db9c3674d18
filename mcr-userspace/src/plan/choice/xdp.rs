//! When the XDP program can make the copies of a job.
//!
//! It takes a frame before there is a socket buffer: nobody else sees it then, what lies beside a frame
//! is lost, and what the kernel can't send it drops without a word. So each of these must hold.

use std::collections::BTreeSet;

use mcr_common::table::{Egress, VlanEdit};

use super::{Job, Objection, Replicator, unheard};
use crate::{
    config::model::DatapathChoice,
    plan::{
        table::Xdp,
        world::{LinkState, World},
    },
};

/// Takes the frame itself for one egress, and has the kernel send to several at once.
///
/// # Errors
///
/// Why it can't: what passes by itself only where nothing lasting is in the way.
pub(in super::super) fn way(world: &World, job: &Job<'_>) -> Result<Replicator, Objection> {
    let replicator = lasting(world, job)?;
    let mut egresses = job.egresses.iter();
    match egresses.find_map(|egress| unready(world, egress)) {
        None => Ok(replicator),
        Some(why) => Err(Objection { why, passing: true }),
    }
}

/// What holds until somebody changes something.
fn lasting(world: &World, job: &Job<'_>) -> Result<Replicator, String> {
    loaded(world)?;
    keeps_nothing(job)?;
    let mode = ingress(world, job.ingress)?;
    if mode == Xdp::Generic {
        unheard(world)?;
    }
    for egress in job.egresses {
        self::egress(world, egress, mode)?;
    }
    if job.egresses.len() == 1 {
        return Ok(Replicator::XdpRedirect);
    }
    apart(world, job.egresses)?;
    if mode == Xdp::Generic && !are_alike(job.egresses) {
        return Err(
            "copies are edited differently, and share their bytes in generic XDP".to_owned(),
        );
    }
    Ok(Replicator::XdpBroadcast)
}

/// Devices whose drivers hand the program single frames as they are on the wire: cards, and veths. A tap
/// hands over several datagrams in one; a bond or team runs the program in the name of its ports.
const NATIVE: [&str; 2] = ["", "veth"];
/// Devices that take frames in themselves, so that the kernel runs the program before it makes anything
/// of them. What comes through another link (to a bridge, a bond, a macvlan) has lost its tag to the socket
/// buffer there, and may be put together of several datagrams (GRO, which the program turns off where it
/// runs). The datagrams that a tap hands over in one say that their checksum is unfinished.
const GENERIC: [&str; 3] = ["", "veth", "tun"];

/// How the program is run at a link: on socket buffers only where XDP is demanded and the driver does
/// not run it, because it takes time of all other frames of the link as well.
///
/// # Errors
///
/// Why it is not, as a sentence without an end.
pub(in super::super) fn mode(world: &World, link: &LinkState) -> Result<Xdp, String> {
    let (name, device) = (&link.name, link.offers.device.as_str());
    let demanded = world.means.demanded == DatapathChoice::Xdp;
    if link.offers.xdp && NATIVE.contains(&device) {
        Ok(Xdp::Native)
    } else if demanded && GENERIC.contains(&device) {
        Ok(Xdp::Generic)
    } else if demanded || link.offers.xdp {
        Err(format!(
            "{name} is a {device}, of which XDP may not see frames as they arrived"
        ))
    } else {
        Err(format!("the driver of {name} does not run XDP programs"))
    }
}

/// Whether all copies are edited alike.
pub(in super::super) fn are_alike(egresses: &[Egress]) -> bool {
    egresses
        .windows(2)
        .all(|pair| pair[0].edits() == pair[1].edits())
}

/// The kernel has taken the program.
fn loaded(world: &World) -> Result<(), String> {
    if world.means.xdp {
        Ok(())
    } else {
        Err(world.no_xdp.clone())
    }
}

/// Neither the host nor a limit has to have its say.
fn keeps_nothing(job: &Job<'_>) -> Result<(), String> {
    if !job.drop_local {
        return Err("`local: keep` leaves frames to the host, too".to_owned());
    }
    if job.limited {
        return Err("`limit` is kept by the TC program".to_owned());
    }
    Ok(())
}

fn name(world: &World, index: u32) -> String {
    match world.links.get(&index) {
        Some(link) => link.name.clone(),
        None => format!("link {index}"),
    }
}

/// The driver runs the program, on frames that are what they look like.
fn ingress(world: &World, index: u32) -> Result<Xdp, String> {
    let Some(link) = world.links.get(&index) else {
        return Err(format!("link {index} is not there"));
    };
    let (name, offers) = (&link.name, &link.offers);
    if let Some(reason) = world.refused_xdp.get(&index) {
        return Err(reason.clone());
    }
    if let Some(id) = offers.foreign_xdp {
        return Err(format!("{name} has an XDP program already (id {id})"));
    }
    let mode = mode(world, link)?;
    if offers.strips_tags {
        return Err(hides_tags(name, &offers.device));
    }
    Ok(mode)
}

/// Why the program does not see tags. A card takes them out of frames. A veth leaves them where its other end
/// has them, which is beside the frame if that says that it can put them in: that end can't be seen from
/// here, so what is said of this one stands for both, and must not be said of it alone.
fn hides_tags(name: &str, device: &str) -> String {
    let here = format!("`ethtool -K {name} rxvlan off rx-vlan-stag-hw-parse off`");
    if device == "veth" {
        let there = "`ethtool -K … txvlan off tx-vlan-stag-hw-insert off`";
        return format!(
            "VLAN tags come out of {name} beside frames, where XDP does not see them, unless its other end \
             puts them in ({there} at the other end of {name}, and only after that {here})"
        );
    }
    format!("{name} takes VLAN tags out of frames, so that XDP does not see them ({here})")
}

/// Why nothing can be sent to an egress now, if that is so, but will be later.
fn unready(world: &World, egress: &Egress) -> Option<String> {
    let name = || name(world, egress.ifindex());
    if !egress.is_up() {
        return Some(format!("{} is down", name()));
    }
    let known = egress.is_addressed();
    (!known).then(|| format!("the station behind {} is not known yet", name()))
}

/// The driver sends what the program gives it, as the relay wants it.
fn egress(world: &World, egress: &Egress, mode: Xdp) -> Result<(), String> {
    let name = name(world, egress.ifindex());
    let link = world.links.get(&egress.ifindex());
    let offers = link.map(|link| &link.offers);
    if egress.vlan_edit() != VlanEdit::Keep {
        return Err(format!("the VLAN tag is edited for {name}"));
    }
    match offers {
        // Generic XDP hands socket buffers to any driver.
        Some(offers) if mode == Xdp::Native && !offers.xdp_transmit => {
            Err(if offers.device == "veth" {
                format!(
                    "{name} takes nothing from XDP: its other end has neither GRO on nor an XDP program"
                )
            } else {
                format!("{name} takes nothing from XDP")
            })
        }
        Some(offers) if offers.queues => Err(format!(
            "frames wait in a queue of {name} or pass filters, which XDP leaves out"
        )),
        Some(_) => Ok(()),
        None => Err(format!("{name} is not there")),
    }
}

/// The kernel knows each copy by its link.
fn apart(world: &World, egresses: &[Egress]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    match egresses
        .iter()
        .find(|egress| !seen.insert(egress.ifindex()))
    {
        None => Ok(()),
        Some(twice) => Err(format!(
            "{} gets more than one copy",
            name(world, twice.ifindex())
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use mcr_common::table::HopEdit;

    use super::*;
    use crate::{
        config::parse_bytes,
        plan::{LinkMap, Means, Offers, Plan, Table, plan},
    };

    fn world() -> World {
        World {
            links: LinkMap::from_iter([
                (1, LinkState::veth("in")),
                (2, LinkState::veth("out")),
                (3, LinkState::veth("side")),
            ]),
            means: Means {
                programs: true,
                xdp: true,
                ..Means::default()
            },
            ..World::default()
        }
    }

    fn to(ifindex: u32) -> Egress {
        Egress::new(ifindex, 1500, None, HopEdit::Keep)
    }

    fn job(egresses: &[Egress]) -> Job<'_> {
        Job {
            ingress: 1,
            egresses,
            drop_local: true,
            limited: false,
        }
    }

    #[test]
    fn one_egress_gets_the_frame_and_several_get_it_at_once() {
        let world = world();
        let redirect = way(&world, &job(&[to(2)]));
        assert_eq!(redirect, Ok(Replicator::XdpRedirect));
        let broadcast = way(&world, &job(&[to(2), to(3)]));
        assert_eq!(broadcast, Ok(Replicator::XdpBroadcast));
    }

    #[test]
    fn generic_xdp_is_for_those_who_demand_it_and_where_all_copies_are_alike() {
        let mut world = world();
        world
            .links
            .change(1, |link| link.offers = Offers::default());
        world
            .links
            .change(2, |link| link.offers = Offers::default());
        let [alike, different] = [[to(2), to(3)], [to(2), to(3).dscp(3)]];
        assert!(way(&world, &job(&alike)).is_err());
        world.means.demanded = DatapathChoice::Xdp;
        assert_eq!(way(&world, &job(&alike)), Ok(Replicator::XdpBroadcast));
        assert!(way(&world, &job(&different)).is_err());
        world.links.change(1, |link| link.offers.xdp = true);
        assert!(
            way(&world, &job(&alike)).is_err(),
            "link 2 has no driver for it"
        );
    }

    #[test]
    fn it_runs_where_frames_are_seen_as_they_arrived() {
        let mode = |demanded, device: &str, xdp| {
            let mut world = world();
            world.means.demanded = demanded;
            let mut link = LinkState::veth("in");
            (link.offers.device, link.offers.xdp) = (device.to_owned(), xdp);
            super::mode(&world, &link)
        };
        for device in ["", "veth"] {
            for demanded in [DatapathChoice::Auto, DatapathChoice::Xdp] {
                assert_eq!(mode(demanded, device, true), Ok(Xdp::Native));
            }
            assert_eq!(mode(DatapathChoice::Xdp, device, false), Ok(Xdp::Generic));
            assert!(mode(DatapathChoice::Auto, device, false).is_err());
        }
        assert_eq!(mode(DatapathChoice::Xdp, "tun", true), Ok(Xdp::Generic));
        assert!(mode(DatapathChoice::Auto, "tun", true).is_err());
        // What they get has come through other links.
        for device in ["bridge", "bond", "team", "macvlan", "vlan", "vxlan"] {
            for xdp in [false, true] {
                let why = mode(DatapathChoice::Xdp, device, xdp).expect_err(device);
                assert!(why.contains(&format!("is a {device}")), "{why}");
            }
        }
    }

    #[test]
    fn of_a_veth_both_ends_are_told_the_other_one_first() {
        let why = objection(|world, _, _| {
            world.links.change(1, |link| link.offers.strips_tags = true);
        });
        let places =
            ["txvlan off", "other end of in", "-K in rxvlan off"].map(|part| why.find(part));
        assert!(places.is_sorted() && places[0].is_some(), "{why}");
        let card = hides_tags("eth0", "");
        assert!(card.contains("-K eth0 rxvlan off") && !card.contains("txvlan"));
    }

    #[test]
    fn copies_are_alike_whatever_link_they_go_to() {
        let other = Egress::new(3, 900, None, HopEdit::Keep).up(false);
        assert!(are_alike(&[to(2), other]));
        assert!(!are_alike(&[to(2), other, to(4).port(5000)]));
        assert!(!are_alike(&[to(2), to(3).dscp(3)]));
    }

    /// What has to be said where one thing is not as it must be.
    fn objection(change: impl FnOnce(&mut World, &mut Job<'_>, &mut Vec<Egress>)) -> String {
        let mut world = world();
        let mut egresses = vec![to(2), to(3)];
        let mut job = job(&[]);
        change(&mut world, &mut job, &mut egresses);
        let job = Job {
            egresses: &egresses,
            ..job
        };
        let objection = way(&world, &job).expect_err("nothing was objected to");
        let passes = ["is down", "not known yet"].map(|end| objection.why.ends_with(end));
        assert_eq!(objection.passing, passes.contains(&true), "{objection:?}");
        objection.why
    }

    #[test]
    fn what_passes_neither_detaches_nor_denies() {
        let rules = |relays: &str| {
            let text = format!("{{version: 1, relays: [{relays}]}}");
            parse_bytes(text.as_bytes()).unwrap().rules.relays
        };
        let station = IpAddr::from([10, 0, 0, 1]);
        let between = "{name: r, between: [in, out], groups: 239.1.1.1, local: drop}";
        let unicast = "{name: r, from: in, to: [out, {link: side, unicast: 10.0.0.1}], \
            groups: 239.1.1.1, local: drop}";
        let attached = |world: &World, served: usize| {
            let Plan { table, relays, .. } = plan(world, &Table::default()).unwrap();
            let lasts = world.links[&1].offers.queues;
            assert_eq!(!relays[0].denied.is_empty(), lasts, "{relays:?}");
            let serving = table.slots.values().filter(|slot| slot.xdp != 0).count();
            assert_eq!(serving, served, "{:?}", table.choices);
            table.xdp.into_keys().collect::<Vec<_>>()
        };
        let mut world = World {
            relays: rules(between),
            ..world()
        };
        world.means.demanded = DatapathChoice::Xdp;
        assert_eq!(attached(&world, 2), [1, 2]);
        world.links.change(1, |link| link.running = false);
        assert_eq!(attached(&world, 1), [1, 2]);
        // What lasts has it detached.
        world.links.change(1, |link| link.offers.queues = true);
        assert_eq!(attached(&world, 1), [1]);

        let mut world = World {
            relays: rules(unicast),
            ..self::world()
        };
        world.means.demanded = DatapathChoice::Xdp;
        assert_eq!(attached(&world, 0), [1]);
        world.neighbours.insert((3, station), [2, 0, 0, 0, 0, 9]);
        assert_eq!(attached(&world, 1), [1]);
    }

    #[test]
    fn what_lasts_is_told_before_what_passes() {
        let both = objection(|world, _, egresses| {
            egresses[0] = to(2).up(false);
            world.links.change(3, |link| link.offers.queues = true);
        });
        assert!(both.contains("queue"), "{both}");
    }

    #[test]
    fn each_thing_that_must_hold_has_a_sentence_if_it_does_not() {
        let of_world = |change: fn(&mut World)| objection(|world, _, _| change(world));
        let offered = |index: u32, change: fn(&mut Offers)| {
            objection(|world, _, _| {
                world.links.change(index, |link| change(&mut link.offers));
            })
        };
        for (objection, word) in [
            (
                of_world(|w| {
                    w.means.xdp = false;
                    w.no_xdp = "the kernel is old".to_owned();
                }),
                "old",
            ),
            (of_world(|w| drop(w.links.remove(1))), "not there"),
            (of_world(|w| drop(w.links.remove(2))), "not there"),
            (
                of_world(|w| drop(w.refused_xdp.insert(1, "no memory".to_owned()))),
                "no memory",
            ),
            (objection(|_, job, _| job.drop_local = false), "keep"),
            (objection(|_, job, _| job.limited = true), "limit"),
            (offered(1, |o| o.foreign_xdp = Some(77)), "77"),
            (offered(1, |o| o.xdp = false), "driver"),
            (offered(1, |o| o.device = "tun".to_owned()), "tun"),
            (offered(1, |o| o.strips_tags = true), "rxvlan"),
            (offered(3, |o| o.xdp_transmit = false), "GRO"),
            (offered(3, |o| o.queues = true), "queue"),
            (objection(|_, _, e| e[1] = to(3).up(false)), "down"),
            (
                objection(|_, _, e| e[1] = to(3).unicast(Ipv4Addr::LOCALHOST.into(), None)),
                "station",
            ),
            (
                objection(|_, _, e| e[1] = to(3).vlan(VlanEdit::Pop)),
                "VLAN",
            ),
            (objection(|_, _, e| e.push(to(2).port(5000))), "more than"),
        ] {
            assert!(objection.contains(word), "{word}: {objection}");
        }
    }
}
