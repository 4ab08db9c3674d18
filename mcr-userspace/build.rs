//! Puts the eBPF object where the crate embeds it from.
//!
//! `MCR_BPF_OBJECT` names one just built (`cargo xtask` sets it); without it the object kept in the
//! tree is taken, so that stable Rust alone gives a complete binary.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const VARIABLE: &str = "MCR_BPF_OBJECT";
const KEPT: &str = "bpf/mcr.bpf.o";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let object = match env::var_os(VARIABLE) {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => PathBuf::from(KEPT),
    };
    println!("cargo::rerun-if-changed={}", object.display());
    match embed(&object) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

/// Copies the object to `$OUT_DIR/mcr.bpf.o`.
fn embed(object: &Path) -> Result<(), String> {
    let bytes = fs::read(object).map_err(|error| {
        format!(
            "cannot read the eBPF object {}: {error}; `cargo xtask build-ebpf --keep` makes one",
            object.display()
        )
    })?;
    // Refused here rather than when a user starts the binary: EM_BPF is machine 247 (elf.h).
    if bytes.get(..6) != Some(b"\x7fELF\x02\x01") || bytes.get(18..20) != Some(&[247, 0]) {
        return Err(format!(
            "{} is no little-endian eBPF object",
            object.display()
        ));
    }
    let out = env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?;
    let target = PathBuf::from(out).join("mcr.bpf.o");
    fs::write(&target, bytes).map_err(|error| format!("cannot write {}: {error}", target.display()))
}
