//! Signal calls and delivery.

pub mod action;
pub mod deliver;
mod frame;
pub mod mask;
pub mod receive;
pub mod send;
