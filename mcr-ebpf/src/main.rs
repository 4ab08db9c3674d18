//! The kernel side of `mcr`.
fn main() {}
