//! Who listens to which group: for now, the memberships of this host that make switches,
//! snooping bridges and NICs deliver what is to be relayed.
//!
//! ```text
//! joins ─► member, one a link ─► host, one a family ─► messages ─► wire ─► socket
//!   ▲                                  ▲                                     │
//!   └───────── poll ◄──────────────────┴───────────── wire ◄─────────────────┘
//! ```
//!
//! Beside them, `gates` has the link receive the frames of what is joined.

mod filter;
mod gates;
pub mod host;
pub mod joins;
mod member;
mod poll;
mod socket;
pub mod wire;
