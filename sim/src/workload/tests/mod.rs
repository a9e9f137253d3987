//! Sessions against their oracle; histories against both judges.

mod brute;
mod histories;
mod sessions;
