//! libFuzzer on [`mcr_fuzz::frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mcr_fuzz::frame::run(input));
