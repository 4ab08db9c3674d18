//! The controller of `mcr`: what the user wants, turned into what the datapath does.
