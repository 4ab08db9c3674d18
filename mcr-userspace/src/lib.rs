//! The controller of `mcr`: what the user wants, turned into what the datapath does.
//!
//! The way of an intent leads through these modules: [`config`] makes a checked model of the
//! rule file; [`links`] says what interfaces exist; both are parts of the
//! [`plan::World`], from which [`plan`] computes what the [`datapath`] is to hold and the groups
//! that [`membership`] joins. [`daemon`] ties them together.

pub mod config;
pub mod datapath;
pub mod plan;
