//! From the text of a rule file to a checked model.

pub mod diagnostic;
pub mod model;
