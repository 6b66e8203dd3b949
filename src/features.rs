//! What to say about features that this program was built without.

/// For what needs the feature `regex`: `=~` and `!~` in queries.
pub const WITHOUT_REGEX: &str = "this lizm was built without the feature regex; cargo build --release has it";
/// For what needs the feature `tls`: HTTPS, certificates and tokens.
pub const WITHOUT_TLS: &str = "this lizm was built without the feature tls; cargo build --release has it";
/// For what needs the feature `zeromq`.
pub const WITHOUT_ZEROMQ: &str =
    "this lizm was built without the feature zeromq; cargo build --release --features zeromq has it";
