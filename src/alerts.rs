//! Alerts: rules over what the store keeps, and telling people when something begins to be wrong and when it is right
//! again.

pub mod evaluate;
pub mod event;
pub mod globs;
mod judge;
pub mod notify;
pub mod rules;
mod service;
pub mod zone;

pub use service::{Alerts, Options};
