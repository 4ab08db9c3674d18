//! What the datapath is to do, computed from what the user wants and what exists.
//!
//! [`World`] is everything that matters, as a plain value. [`plan()`] turns it into a [`Table`],
//! [`diff()`] says which steps lead from the table in force to the new one. All three are pure:
//! they know no kernel, no clock and no file.

mod bulk;
pub mod choice;
mod circles;
pub mod diff;
mod intern;
mod join;
mod parts;
mod planner;
mod redefine;
mod resolve;
pub mod table;
mod tree;
mod wish;
pub mod world;

pub use choice::{Choice, Replicator, Worth};
pub use diff::{Change, Op, diff};
pub use join::Join;
pub use planner::{Plan, PlanError, RelayState, plan};
pub use resolve::why_unusable;
pub use table::Table;
pub use world::{LinkKind, LinkMap, LinkState, Means, Offers, World};
