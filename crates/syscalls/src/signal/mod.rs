//! Signal calls and delivery.

pub mod deliver;
