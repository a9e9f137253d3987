//! The metrics of this crate by name; those of the node are in
//! [`quorate_runtime_tokio::metrics::names`].

use metrics::Unit;
pub use quorate_runtime_tokio::metrics::names::{Kind, Metric};

macro_rules! metrics {
    ($($name:ident = $text:literal, $kind:ident, $unit:ident, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help] pub const $name: Metric = Metric {
            name: $text,
            kind: Kind::$kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// All metrics of this crate.
        pub const ALL: &[Metric] = &[$($name),*];
    };
}

metrics! {
    BUILD_INFO = "quorate_build_info", Gauge, Count, ["version"],
        "Always 1; its label says which release runs.";

    // The key-value store.
    REVISION = "quorate_kv_revision", Gauge, Count, ["node"],
        "The store's revision: how many changes it has seen.";
    KV_BYTES = "quorate_kv_bytes", Gauge, Bytes, ["node"],
        "Bytes of keys and values that the store holds, history included.";

    // Clients' requests, by the names that gRPC servers have for them, etcd's among them.
    GRPC_STARTED = "grpc_server_started_total", Counter, Count, ["grpc_type", "grpc_service", "grpc_method"],
        "Requests that have come in.";
    GRPC_HANDLED = "grpc_server_handled_total", Counter, Count,
        ["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
        "Requests that have ended, by how.";
    GRPC_SECONDS = "grpc_server_handling_seconds", Histogram, Seconds,
        ["grpc_type", "grpc_service", "grpc_method"],
        "From a request's head to the end of its answer.";

    // Peers, as the transport sees them.
    PEER_CONNECTED = "quorate_transport_connected", Gauge, Count, ["node", "peer"],
        "1 if there is a connection to the peer, else 0.";
    PEER_CONNECTIONS = "quorate_transport_connections_total", Counter, Count, ["node", "peer"],
        "Connections to the peer so far.";
    PEER_VIOLATIONS = "quorate_transport_violations_total", Counter, Count, ["node", "peer"],
        "How often the peer broke the rules, which closed its connection.";
    PEER_FORWARDED = "quorate_transport_forwarded_total", Counter, Count, ["node", "peer"],
        "Requests forwarded to the peer.";
    PEER_SERVED = "quorate_transport_served_total", Counter, Count, ["node", "peer"],
        "Requests that the peer forwarded here.";
    PEER_SENT = "quorate_transport_sent_messages_total", Counter, Count, ["node", "peer", "class"],
        "Messages handed to the connection.";
    PEER_SENT_BYTES = "quorate_transport_sent_bytes_total", Counter, Bytes, ["node", "peer", "class"],
        "Their bytes on the stream.";
    PEER_RECEIVED = "quorate_transport_received_messages_total", Counter, Count, ["node", "peer", "class"],
        "Messages that arrived.";
    PEER_RECEIVED_BYTES = "quorate_transport_received_bytes_total", Counter, Bytes, ["node", "peer", "class"],
        "Their bytes on the stream.";
    PEER_DROPPED = "quorate_transport_dropped_messages_total", Counter, Count, ["node", "peer", "class"],
        "Messages dropped: they didn't fit into the queue, waited too long for a connection, or were too long.";
    PEER_QUEUE = "quorate_transport_queue_depth", Gauge, Count, ["node", "peer", "class"],
        "Messages that wait to be sent.";
    PEER_QUEUE_BYTES = "quorate_transport_queue_bytes", Gauge, Bytes, ["node", "peer", "class"],
        "Their bytes.";
    OPEN_CONNECTIONS = "quorate_transport_open_connections", Gauge, Count, ["node"],
        "Connections with peers, those that are just closing included.";
    UNROUTABLE = "quorate_transport_unroutable_total", Counter, Count, ["node"],
        "Messages to nodes whose address is not known.";
    REFUSED = "quorate_transport_refused_total", Counter, Count, ["node"],
        "Connections from outside that were never used.";

    // The process, by the names that Prometheus has for them.
    CPU_SECONDS = "process_cpu_seconds_total", Gauge, Seconds, [],
        "CPU time that the process has taken. (It only goes up, but has fractions, which counters don't.)";
    RESIDENT_BYTES = "process_resident_memory_bytes", Gauge, Bytes, [],
        "Memory that the process has, of the machine's.";
    VIRTUAL_BYTES = "process_virtual_memory_bytes", Gauge, Bytes, [],
        "Memory that the process has been promised.";
    OPEN_FDS = "process_open_fds", Gauge, Count, [],
        "Files and sockets that the process has open.";
    MAX_FDS = "process_max_fds", Gauge, Count, [],
        "How many it may have open.";
    THREADS = "process_threads", Gauge, Count, [],
        "Threads of the process.";
    START_SECONDS = "process_start_time_seconds", Gauge, Seconds, [],
        "When the process was started, in seconds since 1970.";
}
