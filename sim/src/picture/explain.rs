//! What each invariant says, why it must hold, and where to look when it doesn't.

/// An invariant for whoever meets it broken.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Explained {
    /// Its name in the list of invariants.
    pub(crate) id: &'static str,
    /// What must always be.
    pub(crate) rule: &'static str,
    /// What to look at.
    pub(crate) look: &'static str,
}

const fn explained(id: &'static str, rule: &'static str, look: &'static str) -> Explained {
    Explained { id, rule, look }
}

/// The invariant of that name.
pub(crate) fn explain(id: &str) -> Explained {
    const UNKNOWN: Explained = explained(
        "?",
        "A check that has no page of its own failed; its own words say which.",
        "Step back from here, one event at a time, and watch the node that the words name.",
    );
    EXPLAINED.iter().copied().find(|explained| explained.id == id).unwrap_or(UNKNOWN)
}

const EXPLAINED: &[Explained] = &[
    explained(
        "S1",
        "A term has at most one leader, ever: not only at one time (Election Safety).",
        "Search for the term's VoteReply messages. Two quorums share a node: that one granted both candidates, or a grant was counted that it never gave. See what its disk held each time.",
    ),
    explained(
        "S2",
        "A node gives one vote in a term, whatever crashes lie between.",
        "The node's grants in that term, and the durable writes between them: was the first vote on its disk before it was said?",
    ),
    explained(
        "S3",
        "A leader only appends to its own log in the term that it leads (Leader Append-Only).",
        "The step at the cursor truncates: which message made it, and why did a leader take it?",
    ),
    explained(
        "S4",
        "Two logs with an entry of the same index and term are the same up to there (Log Matching).",
        "The append that brought the entry: its prev, and what the receiver had at that place. Or two leaders have written in that term (S1).",
    ),
    explained(
        "S5",
        "Whatever is committed is in the log or snapshot of each leader of a later term (Leader Completeness).",
        "The election of that leader: each vote it got came from a log no more up to date than its own. One voter had the entry: at the time of its grant, or not any more?",
    ),
    explained(
        "S6",
        "What a node takes for committed, and what it applies, is what the cluster has committed (State Machine Safety).",
        "How its commit came to be: the leader's commit in the last append or heartbeat, against the place up to which the logs were known to agree.",
    ),
    explained(
        "S7",
        "Term, commit, applied and snapshot never go back, nor does what a leader knows of a peer in a term; next is above match, and match is true of the peer's disk.",
        "The message that came at the cursor: an old one, or one that was acknowledged before a crash took what it spoke of?",
    ),
    explained(
        "S8",
        "A leader commits only an entry of its own term that is durable on a quorum: of both halves, if the membership is joint.",
        "Compare commit with each node's disk, and with the membership in force. An old term's entry may not be counted (Figure 8 of the paper).",
    ),
    explained(
        "S9",
        "Each node is well-formed: log terms don't decrease and aren't above its own, snapshot ≤ commit ≤ last, a leader has voted for itself and commits as soon as it may.",
        "The step at the cursor, and the node's state before and after it.",
    ),
    explained(
        "M1",
        "At most one membership in a log is not committed.",
        "The leader's log: marked entries above its commit. What let the second one in?",
    ),
    explained(
        "M2",
        "One membership and the next have quorums that intersect, or one of them is joint.",
        "The two memberships in the log: no change by more than one voter without a joint one between.",
    ),
    explained(
        "M3",
        "A node goes by the latest membership in its log or snapshot, and goes back when that is truncated.",
        "Truncations and installed snapshots of that node: does the membership follow the log?",
    ),
    explained(
        "M4",
        "No leader changes the membership before it has committed an entry of its own term.",
        "The leader's first entry in its term, and its commit when the change was appended.",
    ),
    explained(
        "M5",
        "Learners and removed nodes count in no quorum, and can't depose a healthy leader.",
        "Who asked for votes, who answered, and what membership each of them went by.",
    ),
    explained(
        "P1",
        "A snapshot holds the state and the membership of its very index.",
        "Where the snapshot was taken: the membership in force at that index, which is not always the newest.",
    ),
    explained(
        "P2",
        "Installing a snapshot takes nothing back, and keeps what of the log follows it.",
        "The installing step: commit, applied and log before it and after.",
    ),
    explained(
        "P3",
        "What no durable snapshot covers is not thrown away.",
        "The order of two things: the snapshot was durable, and the log was compacted.",
    ),
    explained(
        "R1",
        "A linearizable read shows all that was acknowledged before it began.",
        "Who led when the read was confirmed, and who had taken over: did a quorum answer a heartbeat that was sent after the read had come?",
    ),
    explained(
        "R2",
        "No read is served by a lease once another leader has committed, as long as clocks drift by no more than was agreed.",
        "The gold line is the lease as its holder sees it. Another leader began while it lasted: compare the nodes' clocks in the details, and who voted though it had promised not to. In the profile drift clocks do drift too far, and this is what must come of it.",
    ),
    explained(
        "X1",
        "A session's command is applied once, and asked again gets the same reply.",
        "Search for the command's token: each time that it was proposed and applied.",
    ),
    explained(
        "D1",
        "No message says what isn't durable: neither a term nor a vote nor a log.",
        "The message that left at the cursor, and the node's disk at that moment.",
    ),
    explained(
        "D2",
        "An acknowledgement up to an index means that all up to it is durable, and nothing is applied before it is.",
        "The node's log at the cursor: the part with dashed edges isn't durable. Which write is still under way?",
    ),
    explained(
        "D3",
        "What a node recovers lies between what was last synced and what was last written, without holes.",
        "The crash before this start, which writes were kept, and what the disk held.",
    ),
    explained(
        "D4",
        "After its disk has failed a node says and does nothing more.",
        "What the node did after the failure.",
    ),
    explained(
        "D5",
        "A torn tail that nobody was told of may go; a damaged entry that was acknowledged is never dropped, voted on or acknowledged.",
        "What was acknowledged of the log before the damage, and what the node did at its next start.",
    ),
    explained(
        "D6",
        "A full disk acknowledges nothing in part, and work goes on when there is room again.",
        "The write that failed, and what was said to rest on it.",
    ),
    explained(
        "T1",
        "Each request ends once, and truthfully: done, refused or unknown.",
        "Search for its token: where it was asked, what was answered, and whether it is in the log.",
    ),
    explained(
        "B1",
        "Each queue and each buffer stays within its bound.",
        "What filled it: a peer that doesn't answer, a disk or a state machine that is slow?",
    ),
    explained(
        "liveness",
        "Once the faults have ended, the cluster elects, commits, answers and comes to rest.",
        "The end of the run: does a term follow on another (who asks for votes, who refuses?), or does nobody do anything (what is everyone waiting for?)",
    ),
    explained(
        "contract",
        "Core and driver keep the contract between them: what one says, the other takes; a refusal changes nothing.",
        "The step at the cursor: its input, and the actions that came of it.",
    ),
    explained(
        "refused",
        "A node takes what a correct node has sent: it may ignore it, but never calls it impossible.",
        "The message at the cursor: who sent it, in which of its lives, and what the receiver knew by then.",
    ),
    explained(
        "transfer",
        "Leadership is handed only to a voter that has all of the log.",
        "TimeoutNow, and what its receiver's log and disk held.",
    ),
    explained(
        "wire",
        "A message arrives as it was sent.",
        "The message that was encoded: the words give both forms.",
    ),
    explained(
        "coverage",
        "A whole run must meet enough to prove something.",
        "Nothing is wrong with a node. Was there a leader most of the time? Did commits stall?",
    ),
    explained(
        "spec",
        "Each step of a node is one that the specification allows.",
        "The step at the cursor: the words say which variable ends up otherwise than the specification says.",
    ),
    explained(
        "history",
        "What clients saw could have come of one copy of the state, one request after the other (linearizability).",
        "Search for the tokens of the requests that the words name: when each began and ended, and which entries lie between.",
    ),
    explained(
        "user",
        "An invariant of your own holds at every step.",
        "The step at the cursor, and what has just been applied on that node.",
    ),
    explained(
        "panic",
        "The core never panics, whatever comes in.",
        "The step after the last one here: it isn't in the picture, for it never ended.",
    ),
];
