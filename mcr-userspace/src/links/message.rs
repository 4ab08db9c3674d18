//! What a netlink message says of an interface.

use std::path::Path;

use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, Prop,
};

use crate::plan::{LinkKind, LinkState};

/// The interface a message describes, with its index. Of IP addresses these messages say nothing, and of
/// what it offers only what kind of device it is, and whether there is an XDP program, be it ours.
pub(super) fn read(message: &LinkMessage) -> (u32, LinkState) {
    let mut link = LinkState {
        up: message.header.flags.contains(LinkFlags::Up),
        running: message.header.flags.contains(LinkFlags::Running),
        ..LinkState::default()
    };
    let mut info_kind = None;
    let mut lower = None;
    let mut lower_is_elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(address) => {
                link.mac = address.as_slice().try_into().unwrap_or_default();
            }
            LinkAttribute::Controller(index) => link.master = (*index != 0).then_some(*index),
            LinkAttribute::Link(index) => lower = (*index != 0).then_some(*index),
            LinkAttribute::LinkNetNsId(_) => lower_is_elsewhere = true,
            LinkAttribute::PropList(properties) => {
                let names = properties.iter().filter_map(|property| match property {
                    Prop::AltIfName(name) => Some(name.clone()),
                    _ => None,
                });
                link.alternative_names = names.collect();
            }
            LinkAttribute::Xdp(attached) => link.offers.foreign_xdp = xdp(attached),
            LinkAttribute::LinkInfo(infos) => {
                info_kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.clone()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link.kind = kind(message, info_kind.as_ref(), &link.name);
    link.offers.device = info_kind
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    // Of a veth, the lower link is its other end.
    if !lower_is_elsewhere && is_stacked(info_kind.as_ref()) {
        link.parent = lower;
    }
    (message.header.index, link)
}

/// The id of the XDP program that is attached; of several, one.
fn xdp(attributes: &[LinkXdp]) -> Option<u32> {
    let ids = attributes.iter().filter_map(|attribute| match attribute {
        LinkXdp::ProgId(id)
        | LinkXdp::DrvProgId(id)
        | LinkXdp::SkbProgId(id)
        | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    });
    ids.into_iter().find(|id| *id != 0)
}

fn kind(message: &LinkMessage, info: Option<&InfoKind>, name: &str) -> LinkKind {
    match (message.header.link_layer_type, info) {
        (LinkLayerType::Loopback, _) => LinkKind::Loopback,
        (LinkLayerType::Ether, Some(_)) => LinkKind::Software,
        (LinkLayerType::Ether, None) if is_wireless(name) => LinkKind::Wireless,
        (LinkLayerType::Ether, None) => LinkKind::Physical,
        _ => LinkKind::NoEthernet,
    }
}

/// Whether the interface belongs to a Wi-Fi card, which netlink's link messages do not tell.
fn is_wireless(name: &str) -> bool {
    Path::new("/sys/class/net")
        .join(name)
        .join("phy80211")
        .exists()
}

fn is_stacked(info: Option<&InfoKind>) -> bool {
    matches!(
        info,
        Some(InfoKind::Vlan | InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(layer: LinkLayerType, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.link_layer_type = layer;
        message.attributes = attributes;
        message
    }

    fn info(kind: InfoKind) -> LinkAttribute {
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])
    }

    #[test]
    fn the_other_end_of_a_veth_is_no_parent_but_the_device_below_a_macvlan_is() {
        let below = |kind| {
            let attributes = vec![LinkAttribute::Link(3), info(kind)];
            read(&message(LinkLayerType::Ether, attributes)).1
        };
        assert_eq!(below(InfoKind::Veth).parent, None);
        assert_eq!(below(InfoKind::MacVlan).parent, Some(3));
        assert_eq!(below(InfoKind::MacVlan).kind, LinkKind::Software);
    }

    #[test]
    fn a_device_below_in_another_namespace_is_no_parent() {
        let attributes = vec![
            LinkAttribute::Link(3),
            LinkAttribute::LinkNetNsId(0),
            info(InfoKind::MacVlan),
        ];
        let (_, link) = read(&message(LinkLayerType::Ether, attributes));
        assert_eq!(link.parent, None);
    }

    #[test]
    fn what_has_no_ethernet_header_is_told_apart() {
        let tun = message(LinkLayerType::None, vec![info(InfoKind::Tun)]);
        let tap = message(LinkLayerType::Ether, vec![info(InfoKind::Tun)]);
        let card = message(LinkLayerType::Ether, Vec::new());
        assert_eq!(read(&tun).1.kind, LinkKind::NoEthernet);
        assert_eq!(read(&tap).1.kind, LinkKind::Software);
        assert_eq!(read(&card).1.kind, LinkKind::Physical);
    }

    #[test]
    fn names_address_and_master_are_read() {
        let attributes = vec![
            LinkAttribute::IfName("lan".to_owned()),
            LinkAttribute::PropList(vec![Prop::AltIfName("uplink".to_owned())]),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
            LinkAttribute::Controller(4),
            LinkAttribute::Mtu(9000),
        ];
        let (index, link) = read(&message(LinkLayerType::Ether, attributes));
        assert_eq!(index, 7);
        assert_eq!(link.name, "lan");
        assert_eq!(link.alternative_names, ["uplink"]);
        assert_eq!(link.mac, [2, 0, 0, 0, 0, 1]);
        assert_eq!(link.master, Some(4));
        assert_eq!(link.mtu, 9000);
    }
}
