//! Alerts: rules over what the store keeps, and telling people when something begins to be wrong and when it is right
//! again.

pub mod alert;
mod evaluation;
pub mod evaluator;
pub mod event;
pub mod globs;
pub mod notify;
mod prometheus;
pub mod replay;
pub mod rules;
mod service;
mod source;
mod view;
pub mod zone;

pub use service::{Alerts, SilenceError};
pub use source::Options;
