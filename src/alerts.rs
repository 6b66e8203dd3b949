//! Alerts: rules over what the store keeps, and telling people when something begins to be wrong and when it is right
//! again.

pub mod event;
pub mod globs;
pub mod notify;
pub mod rules;
pub mod zone;
