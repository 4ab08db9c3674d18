//! libFuzzer on [`mcr_fuzz::membership`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mcr_fuzz::membership::run(input));
