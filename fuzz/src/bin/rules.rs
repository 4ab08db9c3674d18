//! libFuzzer on [`mcr_fuzz::rules`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mcr_fuzz::rules::run(input));
