//! Programs that frames pass on their way out of a link, on TCX (Linux 6.6).
//!
//! The kernel tells nobody when one is attached, so it has to be asked again. By their ids programs can be
//! told from those of mcr; to ask for their names would take `CAP_SYS_ADMIN`.
#![expect(unsafe_code, reason = "bpf(2) takes addresses")]

/// `BPF_PROG_QUERY`, which takes `CAP_NET_ADMIN`, and `BPF_TCX_EGRESS` (`include/uapi/linux/bpf.h`).
const PROG_QUERY: libc::c_int = 16;
const TCX_EGRESS: u32 = 47;
/// As many as the kernel attaches in one place (`BPF_MPROG_MAX` of `include/linux/bpf_mprog.h`).
const MOST: u32 = 64;

/// The part of `union bpf_attr` for a query.
#[derive(Default)]
#[repr(C)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    padding: u32,
    /// Where to write flags and links, which is not asked for, and the revision.
    rest: [u64; 4],
}

/// The ids of the programs at the egress of a link, sorted; none where there is no TCX, or bpf(2) is
/// forbidden.
pub(super) fn leaving(ifindex: u32) -> Vec<u32> {
    let mut ids = [0_u32; MOST as usize];
    let mut query = Query {
        ifindex,
        attach_type: TCX_EGRESS,
        programs: ids.as_mut_ptr() as u64,
        count: MOST,
        ..Query::default()
    };
    // SAFETY: the kernel writes to no more ids than are said to have room, and to the query itself, the
    // size of which is given; both live longer than the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_QUERY,
            &raw mut query,
            size_of::<Query>(),
        )
    };
    if result != 0 {
        return Vec::new();
    }
    let mut ids = ids[..MOST.min(query.count) as usize].to_vec();
    ids.sort_unstable();
    ids
}
