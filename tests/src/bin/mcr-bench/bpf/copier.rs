//! The least that makes the copies of a relay. What a relay costs is measured beside it.

use super::{
    Map,
    asm::{Code, Width},
};

/// Helpers of `include/uapi/linux/bpf.h`.
const SKB_STORE_BYTES: i32 = 9;
const L3_CSUM_REPLACE: i32 = 10;
const CLONE_REDIRECT: i32 = 13;
const REDIRECT: i32 = 23;
const SKB_LOAD_BYTES: i32 = 26;
const REDIRECT_MAP: i32 = 51;
/// `TCX_NEXT` and `TC_ACT_SHOT`.
const NEXT: i32 = -1;
const SHOT: i32 = 2;
/// Of `enum xdp_action`.
const XDP_PASS: i32 = 2;
/// `BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS`.
const BROADCAST: i32 = 1 << 3 | 1 << 4;
/// Places in a frame of IPv4: time to live, header checksum.
const TTL: i32 = 14 + 8;
const CHECKSUM: i32 = 14 + 10;

/// What differs between copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Different {
    /// The source MAC address.
    Mac([u8; 6]),
    /// The time to live: before, and of the copy.
    Ttl(u8, u8),
}

/// A copy: the index of its link, and what it has different from others.
pub(crate) type Target = (u32, Option<Different>);

/// A program for TC: MAC addresses written, a copy for each egress, the frame put back for the
/// host, or else the last copy made of the frame itself. It takes every frame.
pub(crate) fn tc(macs: [u8; 12], targets: &[Target], keep: bool) -> Code {
    let mut code = Code::new();
    code.copy(6, 1);
    if keep {
        at_start(&mut code, -16).call(SKB_LOAD_BYTES);
    }
    code.bytes((10, -32), &macs);
    at_start(&mut code, -32).set(5, 0).call(SKB_STORE_BYTES);
    let mut ttl = None;
    for (place, (ifindex, different)) in targets.iter().enumerate() {
        match different {
            None => {}
            Some(Different::Mac(mac)) => {
                code.bytes((10, -32), mac);
                write(&mut code, 6, -32, 6);
            }
            Some(Different::Ttl(before, after)) => {
                change_ttl(&mut code, ttl.unwrap_or(*before), *after);
                ttl = Some(*after);
            }
        }
        code.copy(1, 6).set(2, index(*ifindex)).set(3, 0);
        if !keep && place + 1 == targets.len() {
            code.set(2, 0).set(1, index(*ifindex)).call(REDIRECT).ret();
            return code;
        }
        code.call(CLONE_REDIRECT);
    }
    if let (Some(now), Some((_, Some(Different::Ttl(before, _))))) = (ttl, targets.first()) {
        change_ttl(&mut code, now, *before);
    }
    at_start(&mut code, -16).set(5, 0).call(SKB_STORE_BYTES);
    code.end(NEXT);
    code
}

/// A program for the egress hook of TC, which makes a copy different from others.
pub(crate) fn tc_egress(different: Different) -> Code {
    let mut code = Code::new();
    code.copy(6, 1);
    match different {
        Different::Mac(mac) => {
            code.bytes((10, -32), &mac);
            write(&mut code, 6, -32, 6);
        }
        Different::Ttl(before, after) => change_ttl(&mut code, before, after),
    }
    code.end(NEXT);
    code
}

/// A program for TC that drops every frame.
pub(crate) fn tc_drop() -> Code {
    let mut code = Code::new();
    code.end(SHOT);
    code
}

/// A program for XDP: the frame begins with these bytes instead of its own, and is sent out of a link.
pub(crate) fn xdp_redirect(beginning: &[u8], ifindex: u32) -> Code {
    let mut code = Code::new();
    written(&mut code, beginning);
    code.set(1, index(ifindex)).set(2, 0).call(REDIRECT).ret();
    code.leave(XDP_PASS);
    code
}

/// The same, out of all links of a devmap.
pub(crate) fn xdp_broadcast(beginning: &[u8], devmap: &Map) -> Code {
    let mut code = Code::new();
    written(&mut code, beginning);
    code.map(1, devmap.raw())
        .set(2, 0)
        .set(3, BROADCAST)
        .call(REDIRECT_MAP)
        .ret();
    code.leave(XDP_PASS);
    code
}

/// The same, to the host.
pub(crate) fn xdp_pass(beginning: &[u8]) -> Code {
    let mut code = Code::new();
    written(&mut code, beginning);
    code.end(XDP_PASS).leave(XDP_PASS);
    code
}

fn written(code: &mut Code, beginning: &[u8]) {
    if beginning.is_empty() {
        return;
    }
    // Far below 2^31: this is a part of a frame.
    let length = i32::try_from(beginning.len()).unwrap_or(i32::MAX);
    code.load(Width::Four, 2, (1, 0))
        .load(Width::Four, 3, (1, 4))
        .copy(4, 2)
        .add(4, length)
        .leave_if_beyond(4, 3)
        .bytes((2, 0), beginning);
}

fn change_ttl(code: &mut Code, before: u8, after: u8) {
    code.copy(1, 6)
        .set(2, CHECKSUM)
        .set(3, before.into())
        .set(4, after.into())
        .set(5, 2)
        .call(L3_CSUM_REPLACE)
        .bytes((10, -32), &[after, 0]);
    write(code, TTL, -32, 1);
}

/// Writes bytes from the stack into the frame.
fn write(code: &mut Code, at: i32, from: i32, length: i32) {
    code.copy(1, 6)
        .set(2, at)
        .copy(3, 10)
        .add(3, from)
        .set(4, length)
        .set(5, 0)
        .call(SKB_STORE_BYTES);
}

/// Arguments of a helper: the frame, its first twelve bytes, bytes on the stack.
fn at_start(code: &mut Code, stack: i32) -> &mut Code {
    code.copy(1, 6)
        .set(2, 0)
        .copy(3, 10)
        .add(3, stack)
        .set(4, 12)
}

/// Interface indexes are far below 2^31.
fn index(ifindex: u32) -> i32 {
    i32::try_from(ifindex).unwrap_or_default()
}
