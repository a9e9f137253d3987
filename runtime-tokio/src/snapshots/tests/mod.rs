//! Transfers over streams that break, lie and dawdle.

mod hostile;
mod relayed;
mod support;
mod taking;
mod transfers;
