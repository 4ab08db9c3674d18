//! The command `mcr`.
fn main() {}
