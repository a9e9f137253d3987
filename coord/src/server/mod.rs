//! The gRPC services over a running node.
