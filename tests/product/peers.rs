//! Other people's programs, as clients and as destinations: what they send is summarised, and what the monitor sends
//! them is theirs.
