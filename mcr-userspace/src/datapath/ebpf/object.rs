//! The compiled program, as `build.rs` chose it.

/// The eBPF object file: the program that relays, its maps, and the program `mcr_verdict` with
/// which tests ask for decisions.
pub static BYTES: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mcr.bpf.o"));
