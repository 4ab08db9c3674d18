//! The address by which frames that this instance has relayed are known.

use mcr_common::table::RELAY_MAC_PREFIX;
use sha2::{Digest as _, Sha256};

use super::netns::Netns;

/// The source address of copies with `source_mac: relay`: locally administered, the same after
/// every restart, and different between hosts, containers, network namespaces and instances as far
/// as two bytes allow.
///
/// Two in namespaces of one host may send on the same segment, where bridges and switches would
/// see one station move to and fro. Of the namespace that process 1 is in nothing enters, so that
/// the address of a host, and of a container, is the same after every boot; nor of one without a
/// name where it can't be told from that.
#[must_use]
pub fn relay_mac(instance: &str) -> [u8; 6] {
    let mut hash = Sha256::new();
    // A container may have no machine ID, but a host name of its own.
    hash.update(std::fs::read("/etc/machine-id").unwrap_or_default());
    hash.update([0]);
    if let Ok(name) = nix::unistd::gethostname() {
        hash.update(name.as_encoded_bytes());
    }
    hash.update([0]);
    hash.update(instance);
    if let Some(label) = Netns::own().ok().and_then(Netns::label) {
        hash.update([0]);
        hash.update(label);
    }
    let digest = hash.finalize();
    let [a, b, c, d] = RELAY_MAC_PREFIX;
    [a, b, c, d, digest[0], digest[1]]
}

#[cfg(test)]
mod tests {
    use super::relay_mac;

    #[test]
    fn the_address_is_stable_local_unicast_and_of_the_instance() {
        let mac = relay_mac("default");
        assert_eq!(mac, relay_mac("default"));
        assert_ne!(mac, relay_mac("other"));
        assert_eq!(mac[0] & 3, 2);
    }
}
