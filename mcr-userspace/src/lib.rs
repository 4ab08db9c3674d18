//! The controller of `mcr`: what the user wants, turned into what the datapath does.
//!
//! The way of an intent leads through these modules: [`config`] makes a checked model of the
//! rule file; [`links`] says what interfaces exist; both are parts of the
//! [`plan::World`], from which [`plan`] computes what the [`datapath`] is to hold and the groups
//! that [`membership`] joins. [`daemon`] ties them together, and [`control`] is how it is asked.
//!
//! [`cli`] has one file a verb, and [`traffic`] is the sender and receiver for trying things
//! out.

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod datapath;
pub mod links;
pub mod membership;
pub mod plan;
pub mod traffic;
