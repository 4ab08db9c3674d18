//! Which bytes of a copy differ from the frame it was made from.
//!
//! A [`Basis`] is what the edits of all copies of a frame start from. With an egress it gives a
//! [`Rewrite`], which is all that most egresses want: MAC addresses and TTL. What else an egress
//! may want is in [`header`]: the kernel program writes it by its helpers; an [`Edit`] is all of
//! it for a frame in memory.

pub(crate) mod basis;
pub mod checksum;
pub mod header;
mod memory;

pub use basis::{Basis, HopRewrite, Rewrite};
pub use checksum::updated_checksum;
pub use memory::{Edit, MARGIN, Tag, Udp};
