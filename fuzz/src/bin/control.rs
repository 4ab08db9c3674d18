//! libFuzzer on [`mcr_fuzz::control`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mcr_fuzz::control::run(input));
