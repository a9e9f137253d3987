//! `status` and `members`: how a cluster is.

use std::time::Duration;

use quorate_coord::pb::etcdserverpb::{
    MemberListRequest, MemberListResponse, StatusRequest, StatusResponse, cluster_client::ClusterClient,
    maintenance_client::MaintenanceClient,
};
use serde_json::{Value, json};

use super::{Common, Endpoint, endpoints::Kind, output};
use crate::cli::{Failure, Result};

const STATUS: &str = "\
Exits with 1 if none of the endpoints answered.

Examples:
  quorate status --cluster                 every member of the cluster
  quorate status --endpoints localhost:2379,localhost:2389,localhost:2399
  quorate status --cluster --json | jq '.[] | select(.error)'";

const MEMBERS: &str = "\
Examples:
  quorate members
  quorate members --json | jq -r '.members[].client_urls[]'";

/// `quorate status`.
#[derive(Debug, clap::Args)]
#[command(after_help = STATUS)]
pub(crate) struct StatusCommand {
    /// Ask every member of the cluster, as the first endpoint that answers lists them
    #[arg(long)]
    cluster: bool,
    #[command(flatten)]
    common: Common,
}

/// `quorate members`.
#[derive(Debug, clap::Args)]
#[command(after_help = MEMBERS)]
pub(crate) struct MembersCommand {
    #[command(flatten)]
    common: Common,
}

impl StatusCommand {
    /// Asks all at once.
    pub(crate) async fn run(self) -> Result {
        let Self { cluster, common } = self;
        let endpoints =
            if cluster { of_members(&common).await? } else { common.endpoints.iter().cloned().collect() };
        let asked: Vec<_> = endpoints
            .into_iter()
            .map(|endpoint| {
                let timeout = common.timeout;
                tokio::spawn(async move {
                    let answer = ask_status(&endpoint, timeout).await;
                    (endpoint, answer)
                })
            })
            .collect();
        let mut answers = Vec::new();
        for asked in asked {
            answers.push(asked.await.map_err(|error| Failure::new(error.to_string()))?);
        }
        if common.json {
            output::print_json(
                &answers.iter().map(|(endpoint, answer)| status_json(endpoint, answer)).collect(),
            )?;
        } else {
            output::print(status_table(&answers).as_bytes())?;
        }
        if answers.iter().any(|(_, answer)| answer.is_ok()) {
            return Ok(());
        }
        Err(Failure::new("no endpoint answered; is the cluster running? (`quorate dev` starts one)"))
    }
}

impl MembersCommand {
    /// Asks one.
    pub(crate) async fn run(self) -> Result {
        let answer = members(&self.common).await?;
        if self.common.json {
            let members = answer.members.iter().map(|member| {
                json!({
                    "id": member.id.to_string(),
                    "name": member.name,
                    "peer_urls": member.peer_ur_ls,
                    "client_urls": member.client_ur_ls,
                    "learner": member.is_learner,
                })
            });
            return output::print_json(&json!({
                "header": output::header_json(answer.header.as_ref()),
                "members": members.collect::<Vec<_>>(),
            }));
        }
        let mut rows = vec![["ID", "NAME", "PEER", "CLIENT", "LEARNER"].map(str::to_owned)];
        rows.extend(answer.members.into_iter().map(|member| {
            let learner = if member.is_learner { "yes" } else { "no" };
            let urls = [member.peer_ur_ls, member.client_ur_ls].map(|urls| urls.join(","));
            let [peer, client] = urls;
            [member.id.to_string(), member.name, peer, client, learner.to_owned()]
        }));
        output::print(output::table(&rows).as_bytes())
    }
}

/// Asks one node how it is.
///
/// # Errors
/// In words, if it doesn't answer.
async fn ask_status(endpoint: &Endpoint, timeout: Duration) -> Result<StatusResponse, String> {
    let asked = async {
        let channel = endpoint.connect(timeout).await?;
        let answer = MaintenanceClient::new(channel).status(StatusRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
    };
    tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

async fn members(common: &Common) -> Result<MemberListResponse> {
    let request = MemberListRequest { linearizable: false };
    common
        .endpoints
        .ask(Kind::Read, common.timeout, &request, |channel, request| async move {
            ClusterClient::new(channel).member_list(request).await
        })
        .await
}

async fn of_members(common: &Common) -> Result<Vec<Endpoint>> {
    let list = members(common).await?;
    let mut endpoints = Vec::new();
    for member in list.members {
        let url = member.client_ur_ls.first().ok_or_else(|| {
            Failure::new(format!("node {} has not said where it serves clients: use --endpoints", member.id))
        })?;
        endpoints.push(url.parse().map_err(|error| Failure::new(format!("node {}: {error}", member.id)))?);
    }
    Ok(endpoints)
}

fn status_table(answers: &[(Endpoint, Result<StatusResponse, String>)]) -> String {
    let head = ["ENDPOINT", "ID", "LEADER", "TERM", "INDEX", "APPLIED", "DB SIZE", "ETCD API", "ERROR"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(answers.iter().map(|(endpoint, answer)| match answer {
        Ok(status) => {
            let id = status.header.as_ref().map_or(0, |header| header.member_id);
            let leader = match status.leader {
                0 => "none".to_owned(),
                leader if leader == id => format!("{leader} (this)"),
                leader => leader.to_string(),
            };
            [
                endpoint.to_string(),
                id.to_string(),
                leader,
                status.raft_term.to_string(),
                status.raft_index.to_string(),
                status.raft_applied_index.to_string(),
                size(status.db_size),
                status.version.clone(),
                status.errors.join("; "),
            ]
        }
        Err(why) => {
            let mut row: [String; 9] = std::array::from_fn(|_| "-".to_owned());
            row[0] = endpoint.to_string();
            row[8].clone_from(why);
            row
        }
    }));
    output::table(&rows)
}

fn status_json(endpoint: &Endpoint, answer: &Result<StatusResponse, String>) -> Value {
    match answer {
        Ok(status) => json!({
            "endpoint": endpoint.to_string(),
            "header": output::header_json(status.header.as_ref()),
            "version": status.version,
            "leader": status.leader.to_string(),
            "raft_term": status.raft_term,
            "raft_index": status.raft_index,
            "raft_applied_index": status.raft_applied_index,
            "db_size": status.db_size,
            "db_size_in_use": status.db_size_in_use,
            "learner": status.is_learner,
            "errors": status.errors,
            "error": Value::Null,
        }),
        Err(why) => json!({ "endpoint": endpoint.to_string(), "error": why }),
    }
}

/// Bytes, for people.
pub(crate) fn size(bytes: i64) -> String {
    let kib = bytes as f64 / 1024.0;
    match bytes {
        ..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{kib:.1} KiB"),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", kib / 1024.0),
        _ => format!("{:.1} GiB", kib / 1024.0 / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use quorate_coord::pb::etcdserverpb::ResponseHeader;

    use super::*;

    #[test]
    fn an_endpoint_that_does_not_answer_has_its_row_too() {
        let header = ResponseHeader { member_id: 2, ..ResponseHeader::default() };
        let status =
            StatusResponse { header: Some(header), leader: 2, db_size: 2048, ..StatusResponse::default() };
        let answers = [
            ("127.0.0.1:1".parse().unwrap(), Ok(status)),
            ("127.0.0.1:2".parse().unwrap(), Err("refused".to_owned())),
        ];
        let table = status_table(&answers);
        let row = |n: usize| -> Vec<&str> {
            let cells = table.lines().nth(n).unwrap().split("  ").map(str::trim);
            cells.filter(|cell| !cell.is_empty()).collect()
        };
        assert_eq!(row(1)[1..3], ["2", "2 (this)"]);
        assert!(row(1).contains(&"2.0 KiB"), "{table}");
        assert_eq!(row(2).last(), Some(&"refused"));
        assert_eq!(status_json(&answers[1].0, &answers[1].1)["error"], "refused");
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!([500, 1536, 3 << 20, 5 << 30].map(size), ["500 B", "1.5 KiB", "3.0 MiB", "5.0 GiB"]);
    }
}
