//! A link that ends with this process: a tap that nobody reads.
#![expect(unsafe_code, reason = "no crate here makes taps")]

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::net::UnixDatagram,
};

use nix::{
    errno::Errno,
    net::if_::{if_indextoname, if_nametoindex},
};

use crate::datapath::StepError;

/// Makes links (`Documentation/networking/tuntap.rst`).
const MAKER: &str = "/dev/net/tun";
/// The name, in which the kernel puts the lowest number that is free: [`OWN_LINK`](crate::config::value::OWN_LINK).
const NAME: &[u8] = b"mcr-fan%d";
/// The MTU: too small for IPv6, so that the kernel has nothing to say there. Frames that arrive may be
/// larger, and so they may where a program hands them over (`__bpf_rx_skb` in `net/core/filter.c`).
const MTU: libc::c_int = 1024;

/// A tap.
#[derive(Debug)]
pub(super) struct Tap {
    name: String,
    ifindex: u32,
    /// The link is gone when it is closed.
    _file: File,
}

impl Tap {
    /// Makes a link that is up.
    pub(super) fn make() -> Result<Self, StepError> {
        let failed = |source| StepError::system(format!("can't make a link by {MAKER}"), source);
        let file = OpenOptions::new().read(true).write(true).open(MAKER);
        let file = file.map_err(failed)?;
        let mut request = request(NAME);
        let flags = libc::IFF_TAP | libc::IFF_NO_PI;
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap_or_default();
        ask(&file, libc::TUNSETIFF, &mut request).map_err(failed)?;
        let bytes = request.ifr_name.map(libc::c_char::to_ne_bytes);
        let name: Vec<u8> = bytes
            .into_iter()
            .flatten()
            .take_while(|b| *b != 0)
            .collect();
        let name = String::from_utf8_lossy(&name).into_owned();
        let failed = |source| StepError::system(format!("can't set up the link {name}"), source);
        let ifindex = if_nametoindex(name.as_str()).map_err(|errno| failed(errno.into()))?;
        let socket = UnixDatagram::unbound().map_err(failed)?;
        request.ifr_ifru.ifru_mtu = MTU;
        ask(&socket, libc::SIOCSIFMTU, &mut request).map_err(failed)?;
        ask(&socket, libc::SIOCGIFFLAGS, &mut request).map_err(failed)?;
        // SAFETY: the kernel has filled in the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        request.ifr_ifru.ifru_flags = flags | up();
        ask(&socket, libc::SIOCSIFFLAGS, &mut request).map_err(failed)?;
        Ok(Self {
            name,
            ifindex,
            _file: file,
        })
    }

    /// Its name when it was made.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its interface index.
    pub(super) fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Whether it is still there, in this network namespace, and up.
    pub(super) fn is_up(&self) -> bool {
        let flags = || -> Option<libc::c_short> {
            let name = if_indextoname(self.ifindex).ok()?;
            let mut request = request(name.as_bytes());
            let socket = UnixDatagram::unbound().ok()?;
            ask(&socket, libc::SIOCGIFFLAGS, &mut request).ok()?;
            // SAFETY: the kernel has filled in the flags.
            Some(unsafe { request.ifr_ifru.ifru_flags })
        };
        flags().is_some_and(|flags| flags & up() != 0)
    }
}

fn up() -> libc::c_short {
    libc::c_short::try_from(libc::IFF_UP).unwrap_or_default()
}

/// A request about the link of this name, which is cut where it is too long.
fn request(name: &[u8]) -> libc::ifreq {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
    };
    let places = request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1);
    for (place, byte) in places.zip(name) {
        *place = libc::c_char::from_ne_bytes([*byte]);
    }
    request
}

/// Asks the kernel for something that takes such a request.
fn ask(
    file: &impl std::os::fd::AsRawFd,
    what: libc::Ioctl,
    request: &mut libc::ifreq,
) -> io::Result<()> {
    // SAFETY: the request is the structure that all that is asked for here takes, and outlives the
    // call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), what, request) };
    Errno::result(result)?;
    Ok(())
}
