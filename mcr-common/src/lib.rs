//! What the kernel programs and the controller of `mcr` must agree on.
//!
//! The way of a frame leads through these modules in order: [`frame`] reads the headers,
//! [`classify()`] looks them up in the tables of [`table`] and says what is to be done or, with
//! a [`reason`], why nothing is; [`guard`] knows frames that come around; [`edit`] says which bytes
//! of a copy change; [`fan`] is the way to many egresses at once. The same code runs in the TC program, in the packet ring and in the tests;
//! nothing here does any I/O.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod classify;
pub mod edit;
pub mod fan;
pub mod frame;
pub mod guard;
pub mod reason;
pub mod table;

pub use classify::{Hit, Refusal, Tables, Verdict, classify, decide, look_up, scope, shortcut};
pub use edit::{Basis, Edit, HopRewrite, Rewrite, Tag};
pub use frame::{Addresses, Frame, Packet, Transport, parse, parse_into};
pub use reason::Reason;
