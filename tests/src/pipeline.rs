//! From a world and frames to copies, the way mcr goes: all but the kernel.
//!
//! What can't be, panics: that is what tests look for.

use std::{cell::RefCell, collections::BTreeMap, net::IpAddr};

use crate::oracle::{Arrival, Copy, Judgement, Relayed};
use ipnet::IpNet;
use mcr::{
    datapath::fake::Fake,
    plan::{
        Change, Op, Table, World, diff, plan,
        table::{Devices, Fan, FrameRoute, Route, Xdp},
    },
};
use mcr_common::{
    Basis, Hit, Packet, Tables, Verdict, classify,
    edit::{Edit, MARGIN, Tag, Udp},
    fan,
    frame::Slice,
    guard::{Marks, Origin, Sighting},
    table::{
        EMPTY_SET, Egress, EgressSet, FragmentKey, FrameKey, Key4, Key6, Limit, Link, Node, Ports,
        Scope, Selector, Slot, Target, VlanKey,
    },
};

/// What a datapath has in its maps: what it was told by steps, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Ingress links, by interface index.
    pub links: BTreeMap<u32, Link>,
    /// Where tagged frames and those of the host begin.
    pub vlans: BTreeMap<VlanKey, Scope>,
    /// Groups, and sources at nodes.
    pub routes: BTreeMap<Route, Target>,
    /// Frames that are not IP.
    pub frames: BTreeMap<FrameRoute, Target>,
    /// Where a source decides, by id.
    pub nodes: BTreeMap<u32, Node>,
    /// Where protocol and port decide, by id.
    pub ports: BTreeMap<u32, Ports>,
    /// By id.
    pub slots: BTreeMap<u32, Slot>,
    /// By the id of their bucket.
    pub limits: BTreeMap<u32, Limit>,
    /// By id.
    pub sets: BTreeMap<u32, EgressSet>,
    /// By id.
    pub egresses: BTreeMap<u32, Egress>,
    /// Links of sets that get a frame at once.
    pub fans: BTreeMap<u32, Fan>,
    /// By the id of their set.
    pub devices: BTreeMap<u32, Devices>,
    /// Where the XDP program is attached, by interface index.
    pub xdp: BTreeMap<u32, Xdp>,
}

impl Held {
    /// What a datapath has that holds this table.
    #[must_use]
    pub fn of(table: &Table) -> Self {
        let named = table.sources.iter().flat_map(|(node, sources)| {
            let named = sources.named.iter();
            named.map(|(prefix, target)| {
                let route = Route {
                    node: *node,
                    prefix: *prefix,
                };
                (route, *target)
            })
        });
        let nodes = table.sources.iter();
        Self {
            links: table.links.clone(),
            vlans: table.vlans.clone(),
            routes: table.groups().chain(named).collect(),
            frames: table.frames.clone(),
            nodes: nodes.map(|(id, sources)| (*id, sources.node())).collect(),
            ports: table.ports.clone(),
            slots: table.slots.clone(),
            limits: table.limits.clone(),
            sets: table.sets.clone(),
            egresses: table.egresses.clone(),
            fans: table.fans.clone(),
            devices: table.devices.clone(),
            xdp: table.xdp.clone(),
        }
    }

    /// A datapath that holds the same and fails at these steps.
    #[must_use]
    pub fn failing(self, failing: Vec<usize>) -> Fake {
        Fake {
            table: Table {
                links: self.links,
                vlans: self.vlans,
                frames: self.frames,
                ports: self.ports,
                slots: self.slots,
                limits: self.limits,
                sets: self.sets,
                egresses: self.egresses,
                fans: self.fans,
                devices: self.devices,
                xdp: self.xdp,
                ..Table::default()
            },
            routes: self.routes,
            nodes: self.nodes,
            steps: Vec::new(),
            failing,
        }
    }

    /// What is left in a datapath.
    #[must_use]
    pub fn in_fake(fake: Fake) -> Self {
        Self {
            routes: fake.routes,
            nodes: fake.nodes,
            ..Self::of(&fake.table)
        }
    }

    /// Makes one step. Gives whether it began with what was there.
    pub fn step(&mut self, op: &Op) -> bool {
        match op {
            Op::Link(change) => put(&mut self.links, change),
            Op::Vlan(change) => put(&mut self.vlans, change),
            Op::Route(change) => put(&mut self.routes, change),
            Op::Frame(change) => put(&mut self.frames, change),
            Op::Node(change) => put(&mut self.nodes, change),
            Op::Ports(change) => put(&mut self.ports, change),
            Op::Slot(change) => put(&mut self.slots, change),
            Op::Limit(change) => put(&mut self.limits, change),
            Op::Set(change) => put(&mut self.sets, change),
            Op::Egress(change) => put(&mut self.egresses, change),
            Op::Fan(change) => put(&mut self.fans, change),
            Op::Devices(change) => put(&mut self.devices, change),
            Op::Xdp(change) => put(&mut self.xdp, change),
        }
    }

    /// After all these steps.
    #[must_use]
    pub fn after(mut self, ops: &[Op]) -> Self {
        for op in ops {
            self.step(op);
        }
        self
    }

    /// The longest prefix of an address at a node, but for the address itself.
    fn longest(&self, node: u32, address: IpAddr) -> Option<Target> {
        let at_node = self.routes.iter().filter(|(route, _)| route.node == node);
        at_node
            .map(|(route, target)| (route.prefix, target))
            .filter(|(prefix, _)| prefix.prefix_len() < prefix.max_prefix_len())
            .filter(|(prefix, _)| prefix.contains(&address))
            .max_by_key(|(prefix, _)| prefix.prefix_len())
            .map(|(_, target)| *target)
    }

    fn exact(&self, node: u32, address: IpAddr) -> Option<Target> {
        let prefix = IpNet::from(address);
        self.routes.get(&Route { node, prefix }).copied()
    }
}

fn put<K: Ord + std::marker::Copy, V: Clone + PartialEq>(
    entries: &mut BTreeMap<K, V>,
    change: &Change<K, V>,
) -> bool {
    let before = match change.new.clone() {
        Some(value) => entries.insert(change.key, value),
        None => entries.remove(&change.key),
    };
    before == change.old
}

/// Where a datapath keeps what first fragments carry.
pub trait FirstFragments {
    /// Remembers what a packet carries.
    fn learn(&self, key: &FragmentKey, selector: Selector);
    /// What is remembered of a packet.
    fn get(&self, key: &FragmentKey) -> Option<Selector>;
}

/// First fragments that are never forgotten.
pub type Learnt = RefCell<BTreeMap<FragmentKey, Selector>>;

impl FirstFragments for Learnt {
    fn learn(&self, key: &FragmentKey, selector: Selector) {
        self.borrow_mut().insert(*key, selector);
    }

    fn get(&self, key: &FragmentKey) -> Option<Selector> {
        self.borrow().get(key).copied()
    }
}

/// A datapath with the first fragments it remembers, and the table its counters belong to.
pub struct Memory<'a> {
    /// What it was told.
    pub held: &'a Held,
    /// Of which plan.
    pub table: &'a Table,
    /// What it has seen.
    pub fragments: &'a dyn FirstFragments,
}

impl Tables for Memory<'_> {
    /// Time is left out: no frame comes soon after another.
    fn sight(&self, _: u64, _: Origin) -> Sighting {
        Sighting::Fine(Marks::None)
    }

    fn scope(&self, key: &VlanKey) -> Option<Scope> {
        self.held.vlans.get(key).copied()
    }

    fn exact4(&self, key: &Key4) -> Option<Target> {
        self.held.exact(key.node(), key.address().into())
    }

    fn prefix4(&self, key: &Key4) -> Option<Target> {
        self.held.longest(key.node(), key.address().into())
    }

    fn exact6(&self, key: &Key6) -> Option<Target> {
        self.held.exact(key.node(), key.address().into())
    }

    fn prefix6(&self, key: &Key6) -> Option<Target> {
        self.held.longest(key.node(), key.address().into())
    }

    fn frames(&self, key: &FrameKey) -> Option<Target> {
        let frames = self.held.frames.iter();
        frames
            .filter(|(route, _)| {
                let entry = route.key;
                (entry.node(), entry.ethertype()) == (key.node(), key.ethertype())
                    && first_bits(entry.mac(), route.length) == first_bits(key.mac(), route.length)
            })
            .max_by_key(|(route, _)| route.length)
            .map(|(_, target)| *target)
    }

    fn node(&self, id: u32) -> Option<Node> {
        let node = self.held.nodes.get(&id);
        Some(*node.expect("what leads to sources leads to some that are there"))
    }

    fn ports(&self, id: u32, selector: Selector) -> Target {
        let ports = self.held.ports.get(&id);
        let ports = ports.expect("what leads to ports leads to some that are there");
        ports.find(selector)
    }

    /// The kernel's arrays have every slot; one that was not written would be no rule.
    fn slot(&self, id: u32) -> Option<Slot> {
        let slot = self.held.slots.get(&id);
        Some(*slot.expect("a route leads to a slot that is there"))
    }

    /// No limit is ever reached here.
    fn take(&self, bucket: u32, _frames: u32, _bytes: u32) -> bool {
        assert!(self.held.limits.contains_key(&bucket), "bucket {bucket}");
        true
    }

    fn learn_fragment(&self, key: &FragmentKey, selector: Selector) {
        self.fragments.learn(key, selector);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<Selector> {
        self.fragments.get(key)
    }
}

fn first_bits(mac: [u8; 6], length: u8) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f]) >> (48 - length)
}

impl Memory<'_> {
    /// Decides about a frame and carries it out, in terms of the model.
    ///
    /// # Panics
    ///
    /// If the tables, or what was decided, contradict themselves.
    #[must_use]
    pub fn carry_out(&self, arrival: &Arrival) -> Judgement {
        let Some(link) = self.held.links.get(&arrival.ingress) else {
            return Judgement::Pass;
        };
        if arrival.from_host && link.host_frames == 0 {
            return Judgement::Pass;
        }
        let frame = Slice {
            bytes: &arrival.frame,
            stripped_tag: arrival.stripped_tag,
            to_this_host: arrival.to_this_host,
            from_host: arrival.from_host,
            segment_size: arrival.segment_size,
        };
        let (packet, hit) = match classify(&frame, arrival.ingress, link, self) {
            Ok(Verdict::Pass) => return Judgement::Pass,
            Ok(Verdict::Relay(packet, hit)) => (packet, hit),
            Err(refusal) => {
                return Judgement::Refused {
                    reason: refusal.reason,
                    drop_local: refusal.drop_local,
                };
            }
        };
        assert_ne!(hit.set, EMPTY_SET, "a hit has somewhere to go");
        let basis = Basis::new(&frame, &packet);
        let owner = self.table.owners.get(&hit.slot);
        let mut relayed = Relayed {
            relays: owner.into_iter().flat_map(|o| o.relays.clone()).collect(),
            drop_local: hit.drop_local,
            ..Relayed::default()
        };
        if hit.fan != 0 && fan::takes(&frame, &packet, Marks::None) {
            self.carry_to_all(&hit, arrival, (&basis, &packet), &mut relayed);
            return Judgement::Relayed(relayed);
        }
        let set = &self.held.sets[&hit.set];
        for id in &set.members[..set.len as usize] {
            let egress = &self.held.egresses[id];
            match Edit::new(&basis, &packet, egress) {
                Ok(edit) => relayed.copies.push(Copy {
                    egress: egress.ifindex(),
                    frame: written(&edit, arrival),
                }),
                Err(reason) => relayed.failed.push((egress.ifindex(), reason)),
            }
        }
        relayed.copies.sort();
        relayed.failed.sort();
        Judgement::Relayed(relayed)
    }

    /// Sends one copy to the egress that stands for all, and from there to all links of the set it names.
    fn carry_to_all(
        &self,
        hit: &Hit,
        arrival: &Arrival,
        (basis, packet): (&Basis, &Packet),
        relayed: &mut Relayed,
    ) {
        let egress = &self.held.egresses[&(hit.fan - 1)];
        assert!(egress.is_fan(), "{egress:?} stands for no set");
        let edited = Edit::new(basis, packet, egress).map(|edit| written(&edit, arrival));
        let named = match &edited {
            Ok(frame) => frame.first_chunk().and_then(|address| fan::set(*address)),
            Err(_) => egress.fan_set(),
        };
        let links = self.held.fans[&named.expect("a set is named")].links();
        for link in links {
            match &edited {
                Ok(frame) => {
                    let mut frame = frame.clone();
                    let address = fan::destination(&Slice::new(&frame));
                    frame[..6].copy_from_slice(&address.expect("an IP packet"));
                    relayed.copies.push(Copy {
                        egress: *link,
                        frame,
                    });
                }
                Err(reason) => relayed.failed.push((*link, *reason)),
            }
        }
        relayed.copies.sort();
        relayed.failed.sort();
    }
}

/// A copy, of which only the beginning is written anew.
fn written(edit: &Edit, arrival: &Arrival) -> Vec<u8> {
    let stripped = arrival.stripped_tag.map(|tci| Tag { tpid: 0x8100, tci });
    let reach = edit.reach().min(arrival.frame.len());
    let (beginning, rest) = arrival.frame.split_at(reach);
    let mut buffer = vec![0xee; MARGIN + reach];
    let start = edit.write(beginning, stripped, Udp::Finished, &mut buffer);
    let start = start.expect("the edits reach no further");
    [&buffer[start..], rest].concat()
}

/// The table of `world` as a datapath gets it that held `previous` before, which has all of it
/// after the steps between the two.
///
/// # Panics
///
/// If there is no such table, or it is not what the datapath has.
#[must_use]
pub fn in_force(world: &World, previous: &Table) -> Table {
    let planned = plan(world, previous).expect("the world is small").table;
    let mut held = Held::of(previous);
    for op in diff(previous, &planned) {
        assert!(held.step(&op), "{op} begins with what is not there");
    }
    assert_eq!(held, Held::of(&planned));
    planned
}
