//! Who listens to which group: for now, the memberships of this host that make switches,
//! snooping bridges and NICs deliver what is to be relayed.

pub mod joins;
pub mod kernel;
