//! The control socket: what a running mcr is asked, and what it answers.
//!
//! ```text
//! client ──► task ─┐             ┌── Ask ──► controller
//! client ──► task ─┼─ a thread ──┤               │
//! client ──► task ─┘             └◄── Snapshot ──┘
//! ```
//!
//! Clients have a thread of their own, and each a task in it: however slow, silent or strange one
//! is, the controller only ever hands over a [`Snapshot`], which is small, and is made once for all
//! who wait for one. What is shown is made of it beside the controller.
//!
//! [`protocol`] says what the lines mean, [`view`] what is shown and under which names.

mod carried;
pub mod client;
mod format;
pub mod listener;
pub mod place;
pub mod protocol;
mod requests;
mod routes;
mod server;
mod snapshot;
pub mod view;

pub use self::{
    format::datapath,
    place::Instance,
    routes::{ingresses, routes},
    server::{Ask, Limits, start},
    snapshot::{About, RelaySnapshot, Snapshot},
};
