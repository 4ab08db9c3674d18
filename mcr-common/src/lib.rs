//! What the kernel programs and the controller of `mcr` must agree on.
#![no_std]
