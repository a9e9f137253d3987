//! One node: each call, and each error as etcd's.

use std::future::poll_fn;

use bytes::Bytes;
use http_body_util::Full;
use quorate_coord::{
    machine::MAX_REQUEST_BYTES,
    pb::etcdserverpb::{
        AlarmRequest, CompactionRequest, Compare, DefragmentRequest, DeleteRangeRequest, HashKvRequest,
        HashRequest, MemberAddRequest, MemberListRequest, PutRequest, RangeRequest, RequestOp,
        ResponseHeader, StatusRequest, TxnRequest, alarm_request::AlarmAction, request_op::Request,
        response_op::Response,
    },
    server::{ETCD_API_VERSION, MAX_MESSAGE_BYTES},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tonic::{Code, Status, body::Body, client::GrpcService, codegen::http};

use crate::support::{CLUSTER_ID, alone, bytes, get, put, within};

fn is_filled(header: Option<ResponseHeader>, revision: i64) {
    let header = header.expect("every answer has a header");
    assert_eq!((header.cluster_id, header.member_id, header.revision), (CLUSTER_ID, 1, revision));
    assert!(header.raft_term > 0);
}

fn is(status: &Status, code: Code, words: &str) {
    assert_eq!((status.code(), status.message()), (code, words));
}

fn txn(success: Vec<Request>) -> TxnRequest {
    let success = success.into_iter().map(|request| RequestOp { request: Some(request) }).collect();
    TxnRequest { success, ..TxnRequest::default() }
}

#[tokio::test]
async fn keys_are_put_read_and_deleted() {
    let served = alone().await;
    let mut kv = served.kv().await;
    let response = kv.put(PutRequest { prev_kv: true, ..put("a", "1") }).await.unwrap().into_inner();
    is_filled(response.header, 2);
    assert_eq!(response.prev_kv, None);
    let response = kv.put(PutRequest { prev_kv: true, ..put("a", "2") }).await.unwrap().into_inner();
    assert_eq!(response.prev_kv.unwrap().value, "1");

    let found = kv.range(get("a")).await.unwrap().into_inner();
    is_filled(found.header, 3);
    assert_eq!((found.kvs[0].value.as_ref(), found.kvs[0].version, found.count), (&b"2"[..], 2, 1));
    let before = kv.range(RangeRequest { revision: 2, ..get("a") }).await.unwrap().into_inner();
    assert_eq!(before.kvs[0].value, "1");
    let stale = kv.range(RangeRequest { serializable: true, ..get("a") }).await.unwrap().into_inner();
    assert_eq!(stale, found, "on a node that is alone nothing is stale");

    let delete = DeleteRangeRequest { key: bytes("a"), prev_kv: true, ..DeleteRangeRequest::default() };
    let deleted = kv.delete_range(delete).await.unwrap().into_inner();
    is_filled(deleted.header, 4);
    assert_eq!((deleted.deleted, deleted.prev_kvs[0].value.as_ref()), (1, &b"2"[..]));
    assert_eq!(kv.range(get("a")).await.unwrap().into_inner().count, 0);
    served.stop().await;
}

#[tokio::test]
async fn transactions_write_or_only_read() {
    let served = alone().await;
    let mut kv = served.kv().await;
    let mut request = txn(vec![Request::RequestPut(put("a", "1")), Request::RequestRange(get("a"))]);
    request.compare = vec![Compare { key: bytes("a"), ..Compare::default() }]; // Its version is 0: it isn't there.
    let written = kv.txn(request.clone()).await.unwrap().into_inner();
    assert!(written.succeeded);
    is_filled(written.header, 2);
    assert_eq!(written.responses.len(), 2);
    let again = kv.txn(request).await.unwrap().into_inner();
    assert!(!again.succeeded);
    is_filled(again.header, 2);

    let log_end = served.node.status().await.unwrap().raft.last;
    for serializable in [false, true] {
        let range = RangeRequest { serializable, ..get("a") };
        let read = kv.txn(txn(vec![Request::RequestRange(range)])).await.unwrap().into_inner();
        is_filled(read.header, 2);
        let Some(Response::ResponseRange(found)) = &read.responses[0].response else { panic!() };
        assert_eq!(found.kvs[0].value, "1");
    }
    assert_eq!(served.node.status().await.unwrap().raft.last, log_end, "a read needs no place in the log");
    served.stop().await;
}

#[tokio::test]
async fn history_is_compacted() {
    let served = alone().await;
    let mut kv = served.kv().await;
    for value in ["1", "2", "3"] {
        kv.put(put("a", value)).await.unwrap();
    }
    let compact = |revision| CompactionRequest { revision, physical: true };
    is_filled(kv.compact(compact(3)).await.unwrap().into_inner().header, 4);
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    let future = "etcdserver: mvcc: required revision is a future revision";
    is(&kv.compact(compact(3)).await.unwrap_err(), Code::OutOfRange, compacted);
    is(&kv.compact(compact(5)).await.unwrap_err(), Code::OutOfRange, future);
    let at = |revision| RangeRequest { revision, ..get("a") };
    is(&kv.range(at(2)).await.unwrap_err(), Code::OutOfRange, compacted);
    is(&kv.range(at(5)).await.unwrap_err(), Code::OutOfRange, future);
    assert_eq!(kv.range(at(3)).await.unwrap().into_inner().kvs[0].value, "2");
    served.stop().await;
}

#[tokio::test]
async fn refusals_have_etcds_codes_and_words() {
    let served = alone().await;
    let mut kv = served.kv().await;
    let (invalid, empty) = (Code::InvalidArgument, "etcdserver: key is not provided");
    is(&kv.range(RangeRequest::default()).await.unwrap_err(), invalid, empty);
    is(&kv.put(put("", "1")).await.unwrap_err(), invalid, empty);
    is(&kv.delete_range(DeleteRangeRequest::default()).await.unwrap_err(), invalid, empty);
    is(&kv.txn(txn(vec![Request::RequestPut(put("", ""))])).await.unwrap_err(), invalid, empty);
    let sort = RangeRequest { sort_order: 9, ..get("a") };
    is(&kv.range(sort).await.unwrap_err(), invalid, "etcdserver: invalid sort option");
    let keep = PutRequest { ignore_value: true, ..put("a", "") };
    is(&kv.put(keep.clone()).await.unwrap_err(), invalid, "etcdserver: key not found");
    let contradiction = PutRequest { value: bytes("1"), ..keep };
    is(&kv.put(contradiction).await.unwrap_err(), invalid, "etcdserver: value is provided");
    let lease = PutRequest { lease: 1, ignore_lease: true, ..put("a", "") };
    is(&kv.put(lease.clone()).await.unwrap_err(), invalid, "etcdserver: lease is provided");
    let lease = PutRequest { ignore_lease: false, ..lease };
    is(&kv.put(lease).await.unwrap_err(), Code::NotFound, "etcdserver: requested lease not found");
    let twice = txn(vec![Request::RequestPut(put("a", "")), Request::RequestPut(put("a", ""))]);
    let duplicate = "etcdserver: duplicate key given in txn request";
    is(&kv.txn(twice).await.unwrap_err(), invalid, duplicate);
    let many = txn(vec![Request::RequestRange(get("a")); 129]);
    is(&kv.txn(many).await.unwrap_err(), invalid, "etcdserver: too many operations in txn request");
    let future = txn(vec![Request::RequestRange(RangeRequest { revision: 9, ..get("a") })]);
    let words = "etcdserver: mvcc: required revision is a future revision";
    is(&kv.txn(future).await.unwrap_err(), Code::OutOfRange, words);
    assert_eq!(kv.range(get("a")).await.unwrap().into_inner().header.unwrap().revision, 1);
    served.stop().await;
}

#[tokio::test]
async fn requests_are_bounded_in_size() {
    let served = alone().await;
    let mut kv = served.kv().await;
    let sized = |bytes: usize| put("a", &"v".repeat(bytes));
    kv.put(sized(MAX_REQUEST_BYTES - 64)).await.unwrap();
    assert_eq!(kv.range(get("a")).await.unwrap().into_inner().kvs[0].value.len(), MAX_REQUEST_BYTES - 64);
    let too_large = kv.put(sized(MAX_REQUEST_BYTES)).await.unwrap_err();
    is(&too_large, Code::InvalidArgument, "etcdserver: request is too large");
    let far_too_large = kv.put(sized(MAX_MESSAGE_BYTES)).await.unwrap_err();
    assert_eq!(far_too_large.code(), Code::OutOfRange, "{far_too_large}");
    kv.put(put("a", "small")).await.unwrap();
    served.stop().await;
}

#[tokio::test]
async fn a_node_says_how_it_is() {
    let served = alone().await;
    let (mut kv, mut maintenance) = (served.kv().await, served.maintenance().await);
    kv.put(put("a", "1")).await.unwrap();
    let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    is_filled(status.header, 2);
    assert_eq!((status.version.as_str(), status.leader, status.is_learner), (ETCD_API_VERSION, 1, false));
    assert!(status.raft_index >= 2 && status.raft_applied_index >= 2 && status.raft_term > 0, "{status:?}");
    assert!(status.db_size > 0 && status.db_size_in_use > 0 && status.errors.is_empty(), "{status:?}");

    let get_alarms = |action: AlarmAction| AlarmRequest { action: action.into(), ..AlarmRequest::default() };
    let alarms = maintenance.alarm(get_alarms(AlarmAction::Get)).await.unwrap().into_inner();
    is_filled(alarms.header, 2);
    assert!(alarms.alarms.is_empty());
    let raised = maintenance.alarm(get_alarms(AlarmAction::Activate)).await.unwrap_err();
    assert_eq!(raised.code(), Code::Unimplemented);
    let defragment = maintenance.defragment(DefragmentRequest {}).await.unwrap_err();
    assert_eq!(defragment.code(), Code::Unimplemented);
    served.stop().await;
}

#[tokio::test]
async fn hashes_follow_what_is_stored() {
    let served = alone().await;
    let (mut kv, mut maintenance) = (served.kv().await, served.maintenance().await);
    kv.put(put("a", "1")).await.unwrap();
    let hash = maintenance.hash(HashRequest {}).await.unwrap().into_inner();
    is_filled(hash.header, 2);
    let hash_kv = maintenance.hash_kv(HashKvRequest { revision: 0 }).await.unwrap().into_inner();
    is_filled(hash_kv.header, 2);
    assert_eq!((hash_kv.compact_revision, hash_kv.hash_revision), (-1, 2));
    kv.put(put("a", "2")).await.unwrap();
    assert_ne!(maintenance.hash(HashRequest {}).await.unwrap().into_inner().hash, hash.hash);
    let then = maintenance.hash_kv(HashKvRequest { revision: 2 }).await.unwrap().into_inner();
    assert_eq!(then.hash, hash_kv.hash);
    let future = maintenance.hash_kv(HashKvRequest { revision: 9 }).await.unwrap_err();
    is(&future, Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
    served.stop().await;
}

#[tokio::test]
async fn members_are_listed() {
    let served = alone().await;
    let mut cluster = served.cluster().await;
    for linearizable in [false, true] {
        let list = cluster.member_list(MemberListRequest { linearizable }).await.unwrap().into_inner();
        let header = list.header.unwrap();
        assert_eq!((header.cluster_id, header.member_id, header.revision), (CLUSTER_ID, 1, 0));
        let [member] = &list.members[..] else { panic!("{list:?}") };
        assert_eq!((member.id, member.name.as_str(), member.is_learner), (1, "n1", false));
        assert_eq!(member.client_ur_ls, vec![served.url.clone()]);
        assert_eq!(member.peer_ur_ls, ["https://127.0.0.1:1"]);
    }
    let add = cluster.member_add(MemberAddRequest::default()).await.unwrap_err();
    assert_eq!(add.code(), Code::Unimplemented);
    served.stop().await;
}

#[tokio::test]
async fn it_tells_of_its_health_and_its_services() {
    let served = alone().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(served.channel().await);
    let request = tonic_health::pb::HealthCheckRequest { service: "etcdserverpb.KV".to_owned() };
    assert_eq!(health.check(request).await.unwrap().into_inner().status, 1);

    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let mut reflection = ServerReflectionClient::new(served.channel().await);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = reflection.server_reflection_info(tokio_stream::once(list)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else { panic!() };
    let names: Vec<_> = services.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["etcdserverpb.KV", "etcdserverpb.Cluster", "etcdserverpb.Maintenance"] {
        assert!(names.contains(&name), "{names:?}");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_stopped_node_says_so_and_a_server_stops_with_clients_connected() {
    let served = alone().await;
    let mut kv = served.kv().await;
    kv.put(put("a", "1")).await.unwrap();
    within(served.node.shutdown()).await;
    let stopped = "etcdserver: server stopped";
    is(&kv.put(put("a", "2")).await.unwrap_err(), Code::Unavailable, stopped);
    is(&kv.range(get("a")).await.unwrap_err(), Code::Unavailable, stopped);
    served.stop().await;
    assert_eq!(kv.range(get("a")).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_server_does_not_wait_for_ever_for_a_stream_that_stays_open() {
    let served = alone().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(served.channel().await);
    let request = tonic_health::pb::HealthCheckRequest { service: "etcdserverpb.KV".to_owned() };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    served.stop().await;
}

#[tokio::test]
async fn what_is_not_grpc_does_no_harm() {
    let served = alone().await;
    let address = served.url.strip_prefix("http://").unwrap().to_owned();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // Something else; a frame that is cut off; a frame that claims to have 16 MiB.
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        [&preface[..], &[0, 0, 9, 1]].concat(),
        [&preface[..], &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
        vec![0xff; 4096],
    ] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(&garbage).await.unwrap();
    }
    let mut kv = served.kv().await;
    // A message that claims to have 2 GiB, and isn't there.
    let mut channel = served.channel().await;
    let body = Full::new(Bytes::from_static(&[0, 0x7f, 0xff, 0xff, 0xff]));
    let request = http::Request::post(format!("{}/etcdserverpb.KV/Put", served.url))
        .header("content-type", "application/grpc")
        .body(Body::new(body))
        .unwrap();
    within(poll_fn(|cx| GrpcService::poll_ready(&mut channel, cx))).await.unwrap();
    let response = within(channel.call(request)).await.unwrap();
    let status = response.headers().get("grpc-status").map(|code| code.to_str().unwrap().to_owned());
    assert_eq!(status.as_deref(), Some("11"), "OUT_OF_RANGE: {response:?}");
    kv.put(put("a", "1")).await.unwrap();
    served.stop().await;
}
