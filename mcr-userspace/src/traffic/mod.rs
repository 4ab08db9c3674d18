//! A multicast sender and a receiver for trying things out: what `mcr send` and `mcr recv` do.
//!
//! The sender numbers its datagrams ([`wire`]) so that the receiver can tell loss, duplicates and
//! reordering ([`sequence`], [`tracker`]); datagrams of other programs are text to both. Nothing
//! in here prints: [`send::send`] and [`recv::recv`] report to an observer and return a summary.
//!
//! The way of a datagram:
//!
//! ```text
//! send: Pacer ──due──► payload (wire, text) ──sendmmsg──► group
//!                                                          │
//!       Answers ◄── unicast ◄── Answerer (--ack) ◄──┐      ▼
//!       recv: Tracker ◄── Sequence ◄────────────────┴── recvmmsg
//! ```
//!
//! The sockets are Linux ones, addressed by interface index, so that neither side needs a route.

pub mod answer;
mod batch;
pub mod error;
mod flow;
pub mod group;
mod join;
pub mod link;
pub mod options;
pub mod payload;
pub mod rate;
pub mod recv;
pub mod send;
pub mod sequence;
mod socket;
pub mod stop;
pub mod text;
pub mod tracker;
mod wait;
pub mod wire;

pub use error::Error;
