//! The compiled program, as `build.rs` chose it.

/// The eBPF object file.
pub(super) static BYTES: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mcr.bpf.o"));
