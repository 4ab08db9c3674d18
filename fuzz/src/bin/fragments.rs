//! libFuzzer on [`mcr_fuzz::fragments`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mcr_fuzz::fragments::run(input));
