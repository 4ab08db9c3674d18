//! What the end-to-end tests of `mcr` are made with: network namespaces, traffic, captures.

pub mod fixtures;
pub mod oracle;
