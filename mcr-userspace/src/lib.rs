//! The controller of `mcr`: what the user wants, turned into what the datapath does.
pub mod cli;
pub mod traffic;
