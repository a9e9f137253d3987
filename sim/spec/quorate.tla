------------------------------ MODULE quorate ------------------------------
(***************************************************************************)
(* The Raft of quorate-core, as steps of single nodes.                     *)
(*                                                                         *)
(* What a node knows and what its disk holds are told apart: `term`,       *)
(* `vote` and `log` are in memory; Issue puts an image of them into the    *)
(* `queue` of writes; Persist is the disk doing the oldest one; Restart    *)
(* begins again from the disk.  Nothing is said that the disk would not    *)
(* bear out (the Send actions), and that is where most of Raft's safety    *)
(* lives.                                                                  *)
(*                                                                         *)
(* An entry is known by its index and term, as Log Matching allows.  Only  *)
(* a membership says more.  A log may begin after `base`: what came before *)
(* is committed, and in a snapshot.  Messages are never taken out of       *)
(* `msgs`, so each may arrive late, twice, in any order, or never.         *)
(*                                                                         *)
(* Left out: time (timeouts, stickiness, leases), reads, what commands     *)
(* say, how a leader finds out where logs agree (nextIndex).               *)
(***************************************************************************)
EXTENDS Integers, Sequences, FiniteSets

CONSTANTS Server,     \* The ids of all nodes that there ever are: 1..n.
          AsksFirst   \* TRUE if there is a pre-vote before each election.

VARIABLES
    term, vote,       \* currentTerm, and votedFor (0: nobody).
    role,             \* "follower", "precandidate", "candidate" or "leader".
    log,              \* [base, baseTerm, terms, members]; see Last and below.
    commit,           \* commitIndex.
    agreed,           \* Up to here the log is the present leader's, as it said.
    votes, round,     \* Who has said yes, and to which pre-vote's question.
    match,            \* For a leader: what each other has, durably.
    disk, queue,      \* [term, vote, log]: what is durable; writes under way.
    msgs              \* All messages ever sent.

hard   == <<term, vote>>
ballot == <<votes, round>>
stored == <<disk, queue>>

Max(a, b) == IF a > b THEN a ELSE b
Min(a, b) == IF a < b THEN a ELSE b

----------------------------------------------------------------------------
(* Logs.  `terms` has the terms of the entries after `base`, `members` all *)
(* memberships that are known: [at |-> n, who |-> C], C in force from n.   *)

Last(l) == l.base + Len(l.terms)
TermAt(l, n) == IF n = l.base THEN l.baseTerm ELSE l.terms[n - l.base]
LastId(l) == <<TermAt(l, Last(l)), Last(l)>>
\* Is this entry (an id is <<term, index>>) in it?
Has(l, id) == \/ id[2] < l.base
              \/ id[2] <= Last(l) /\ TermAt(l, id[2]) = id[1]
\* The entries after n are gone.
UpTo(l, n) == [l EXCEPT !.terms = SubSeq(@, 1, n - l.base), !.members = {x \in @ : x.at <= n}]
\* One more, of term t, with the memberships ms: one or none.
With(l, t, ms) == [l EXCEPT !.terms = Append(@, t), !.members = @ \cup ms]
\* The latest of some memberships.
Latest(ms) == CHOOSE x \in ms : \A y \in ms : y.at <= x.at
\* In force is the latest in the log, committed or not.
InForce(l) == Latest(l.members).who
\* At least as up to date, for the ids of last entries.
UpToDate(a, b) == a[1] > b[1] \/ (a[1] = b[1] /\ a[2] >= b[2])

(* Memberships: [new, old, learners]; `old` is empty unless it is joint.   *)
Voters(C) == C.new \cup C.old
IsMajority(S, V) == 2 * Cardinality(S \cap V) > Cardinality(V)
IsQuorum(S, C) == IsMajority(S, C.new) /\ (C.old = {} \/ IsMajority(S, C.old))
\* May D follow C?  Any two quorums meet.
Follows(C, D) ==
    \/ C.old # {} /\ D.old = {} /\ D.new = C.new
    \/ C.old = {} /\ D.old = C.new
    \/ C.old = {} /\ D.old = {} /\ Cardinality((C.new \ D.new) \cup (D.new \ C.new)) <= 1

(* What the disk bears out.                                                *)
TermIsDurable(i) == disk[i].term = term[i]
VoteIsDurable(i, j) == disk[i].term = term[i] /\ disk[i].vote = j
LogIsDurable(i, n) ==
    LET d == disk[i].log  l == log[i]
    IN  /\ n <= Last(d)
        /\ n < d.base \/ n < l.base \/ TermAt(d, n) = TermAt(l, n)
Image(i) == [term |-> term[i], vote |-> vote[i], log |-> log[i]]

\* A log whose membership C was there from the beginning.
Empty(C) == [base |-> 0, baseTerm |-> 0, terms |-> <<>>, members |-> {[at |-> 0, who |-> C]}]

Init ==
    /\ \A i \in DOMAIN term :
        /\ term[i] = 0 /\ vote[i] = 0 /\ role[i] = "follower"
        /\ log[i] = Empty(InForce(log[i]))
        /\ commit[i] = 0 /\ agreed[i] = 0 /\ votes[i] = {} /\ round[i] = <<0, 0>>
        /\ match[i] = [j \in Server |-> 0]
        /\ disk[i] = Image(i) /\ queue[i] = <<>>
    /\ msgs = {}

----------------------------------------------------------------------------
(* The disk.                                                               *)

\* What is in memory is to be durable.
Issue(i) ==
    /\ queue' = [queue EXCEPT ![i] = Append(@, Image(i))]
    /\ UNCHANGED <<hard, role, log, commit, agreed, ballot, match, disk, msgs>>

\* The oldest write is done.
Persist(i) ==
    /\ queue[i] # <<>>
    /\ disk' = [disk EXCEPT ![i] = Head(queue[i])] /\ queue' = [queue EXCEPT ![i] = Tail(@)]
    /\ UNCHANGED <<hard, role, log, commit, agreed, ballot, match, msgs>>

\* A process begins, from its disk; a crash has lost the rest.  What was committed it may have to learn again, from n on.
Restart(i, n) ==
    /\ n <= Max(commit[i], disk[i].log.base)
    /\ term' = [term EXCEPT ![i] = disk[i].term] /\ vote' = [vote EXCEPT ![i] = disk[i].vote]
    /\ log' = [log EXCEPT ![i] = disk[i].log] /\ commit' = [commit EXCEPT ![i] = n]
    /\ role' = [role EXCEPT ![i] = "follower"] /\ agreed' = [agreed EXCEPT ![i] = 0]
    /\ votes' = [votes EXCEPT ![i] = {}] /\ queue' = [queue EXCEPT ![i] = <<>>]
    /\ UNCHANGED <<round, match, disk, msgs>>

\* What is committed and durable may be forgotten: a snapshot has it.
Compact(i, n) ==
    /\ n > log[i].base /\ n <= commit[i] /\ LogIsDurable(i, n)
    /\ log' = [log EXCEPT ![i] = [base |-> n, baseTerm |-> TermAt(@, n), members |-> @.members,
                                  terms |-> SubSeq(@.terms, n - @.base + 1, Len(@.terms))]]
    /\ UNCHANGED <<hard, role, commit, agreed, ballot, match, stored, msgs>>

----------------------------------------------------------------------------
(* Elections.                                                              *)

\* A member with a vote, or one whose loss of it is not committed.
MayLead(i) ==
    LET ms == log[i].members  x == Latest(ms)
    IN  \/ i \in Voters(x.who)
        \/ x.at > commit[i] /\ ms # {x} /\ i \in Voters(Latest(ms \ {x}).who)

\* Would a quorum vote for it?  It asks, and would itself.
Ask(i, id) ==
    /\ role[i] # "leader" /\ MayLead(i)
    /\ role' = [role EXCEPT ![i] = "precandidate"] /\ votes' = [votes EXCEPT ![i] = {i}]
    /\ round' = [round EXCEPT ![i] = id]
    /\ UNCHANGED <<hard, log, commit, agreed, match, stored, msgs>>

Campaign(i) ==
    /\ term' = [term EXCEPT ![i] = @ + 1] /\ vote' = [vote EXCEPT ![i] = i]
    /\ role' = [role EXCEPT ![i] = "candidate"] /\ votes' = [votes EXCEPT ![i] = {}]
    /\ agreed' = [agreed EXCEPT ![i] = 0]
    /\ UNCHANGED <<log, commit, round, match, stored, msgs>>

Timeout(i) ==
    /\ role[i] # "leader" /\ MayLead(i)
    /\ AsksFirst => (role[i] = "precandidate" /\ IsQuorum(votes[i], InForce(log[i])))
    /\ Campaign(i)

\* The leader hands over.
TakeOver(i, m) ==
    /\ m \in msgs /\ m.to = i /\ m.type = "TimeoutNow" /\ m.term = term[i]
    /\ role[i] # "leader" /\ MayLead(i)
    /\ Campaign(i)

\* A later term is heard of.
UpdateTerm(i, m) ==
    /\ m \in msgs /\ m.to = i /\ m.term > term[i]
    /\ term' = [term EXCEPT ![i] = m.term] /\ vote' = [vote EXCEPT ![i] = 0]
    /\ role' = [role EXCEPT ![i] = "follower"] /\ votes' = [votes EXCEPT ![i] = {}]
    /\ agreed' = [agreed EXCEPT ![i] = 0]
    /\ UNCHANGED <<log, commit, round, match, stored, msgs>>

\* Anybody may give up, at any time.
StepDown(i) ==
    /\ role[i] # "follower"
    /\ role' = [role EXCEPT ![i] = "follower"] /\ votes' = [votes EXCEPT ![i] = {}]
    /\ UNCHANGED <<hard, log, commit, agreed, round, match, stored, msgs>>

\* One vote a term, for a log that lacks nothing of its own.
Grant(i, m) ==
    /\ m \in msgs /\ m.to = i /\ m.type = "Vote" /\ m.term = term[i]
    /\ role[i] = "follower" /\ vote[i] \in {0, m.from}
    /\ UpToDate(m.last, LastId(log[i]))
    /\ vote' = [vote EXCEPT ![i] = m.from]
    /\ UNCHANGED <<term, role, log, commit, agreed, ballot, match, stored, msgs>>

CountPreVote(i, m) ==
    /\ m \in msgs /\ m.to = i /\ m.type = "PreVoteReply" /\ m.granted
    /\ role[i] = "precandidate" /\ m.id = round[i]
    /\ votes' = [votes EXCEPT ![i] = @ \cup {m.from}]
    /\ UNCHANGED <<hard, role, log, commit, agreed, round, match, stored, msgs>>

CountVote(i, m) ==
    /\ m \in msgs /\ m.to = i /\ m.type = "VoteReply" /\ m.granted /\ m.term = term[i]
    /\ role[i] = "candidate"
    /\ votes' = [votes EXCEPT ![i] = @ \cup {m.from}]
    /\ UNCHANGED <<hard, role, log, commit, agreed, round, match, stored, msgs>>

\* Its own counts like anybody's: when it is durable.
CountOwnVote(i) ==
    /\ role[i] = "candidate" /\ VoteIsDurable(i, i)
    /\ votes' = [votes EXCEPT ![i] = @ \cup {i}]
    /\ UNCHANGED <<hard, role, log, commit, agreed, round, match, stored, msgs>>

BecomeLeader(i) ==
    /\ role[i] = "candidate" /\ MayLead(i)
    /\ IsQuorum(votes[i], InForce(log[i]))
    /\ role' = [role EXCEPT ![i] = "leader"] /\ match' = [match EXCEPT ![i] = [j \in Server |-> 0]]
    /\ UNCHANGED <<hard, log, commit, agreed, ballot, stored, msgs>>

----------------------------------------------------------------------------
(* A leader.                                                               *)

\* One entry more, a command or its first.
ClientRequest(i) ==
    /\ role[i] = "leader"
    /\ log' = [log EXCEPT ![i] = With(@, term[i], {})]
    /\ UNCHANGED <<hard, role, commit, agreed, ballot, match, stored, msgs>>

\* A membership: one at a time, and none before an entry of its own term is committed.  A log begins with its membership.
Reconfigure(i, C) ==
    /\ role[i] = "leader"
    /\ Last(log[i]) = 0 => C = InForce(log[i])
    /\ Last(log[i]) > 0 => Latest(log[i].members).at <= commit[i]
    /\ Last(log[i]) > 0 => commit[i] >= log[i].base /\ TermAt(log[i], commit[i]) = term[i]
    /\ Last(log[i]) > 0 => Follows(InForce(log[i]), C)
    /\ log' = [log EXCEPT ![i] = With(@, term[i], {[at |-> Last(@) + 1, who |-> C]})]
    /\ UNCHANGED <<hard, role, commit, agreed, ballot, match, stored, msgs>>

CountAck(i, m) ==
    /\ m \in msgs /\ m.to = i /\ m.type = "Appended" /\ m.term = term[i]
    /\ role[i] = "leader"
    /\ match' = [match EXCEPT ![i][m.from] = Max(@, m.upTo)]
    /\ UNCHANGED <<hard, role, log, commit, agreed, ballot, stored, msgs>>

\* An entry of its own term is committed once a quorum has it durably; its own log counts as far as it is durable.
AdvanceCommit(i, n) ==
    /\ role[i] = "leader" /\ n > commit[i] /\ n <= Last(log[i])
    /\ TermAt(log[i], n) = term[i]
    /\ LET others == {j \in Server \ {i} : match[i][j] >= n}
           self == IF LogIsDurable(i, n) THEN {i} ELSE {}
       IN  IsQuorum(others \cup self, InForce(log[i]))
    /\ commit' = [commit EXCEPT ![i] = n]
    /\ UNCHANGED <<hard, role, log, agreed, ballot, match, stored, msgs>>

----------------------------------------------------------------------------
(* A follower.                                                             *)

FromLeader(i, m, type) ==
    /\ m \in msgs /\ m.to = i /\ m.type = type
    /\ m.term = term[i] /\ role[i] = "follower"

\* The last entry that m carries, or the one before them.
End(m) == IF m.terms = <<>> THEN m.prev ELSE <<m.terms[Len(m.terms)], m.prev[2] + Len(m.terms)>>
\* The term of entry n of m, or of the one before them.
Carries(m, n) == IF n = m.prev[2] THEN m.prev[1] ELSE m.terms[n - m.prev[2]]

\* Entry n is not the leader's, and all before it are: it goes, and what comes after.
Truncate(i, m, n) ==
    /\ FromLeader(i, m, "Append") /\ Has(log[i], m.prev)
    /\ n > commit[i] /\ n > m.prev[2] /\ n <= Min(Last(log[i]), End(m)[2])
    /\ Has(log[i], <<Carries(m, n - 1), n - 1>>)
    /\ Carries(m, n) # TermAt(log[i], n)
    /\ log' = [log EXCEPT ![i] = UpTo(@, n - 1)]
    /\ UNCHANGED <<hard, role, commit, agreed, ballot, match, stored, msgs>>

\* The next entry is taken over, where the one before it is the leader's.
AppendEntry(i, m) ==
    LET n == Last(log[i]) + 1
    IN  /\ FromLeader(i, m, "Append")
        /\ Has(log[i], m.prev)
        /\ n > m.prev[2] /\ n <= End(m)[2]
        /\ Has(log[i], <<Carries(m, n - 1), n - 1>>)
        /\ log' = [log EXCEPT ![i] = With(@, Carries(m, n), {x \in m.members : x.at = n})]
        /\ UNCHANGED <<hard, role, commit, agreed, ballot, match, stored, msgs>>

\* All that m carries is in the log.  More of the log may be none of the leader's: it is not committed by this.
Accept(i, m) ==
    /\ FromLeader(i, m, "Append") /\ Has(log[i], m.prev) /\ Has(log[i], End(m))
    /\ agreed' = [agreed EXCEPT ![i] = Max(@, End(m)[2])]
    /\ commit' = [commit EXCEPT ![i] = Max(@, Min(m.commit, End(m)[2]))]
    /\ UNCHANGED <<hard, role, log, ballot, match, stored, msgs>>

\* The leader knows the log to match up to m.commit.
FollowCommit(i, m) ==
    /\ FromLeader(i, m, "Commit") /\ m.commit <= Last(log[i])
    /\ commit' = [commit EXCEPT ![i] = Max(@, m.commit)]
    /\ UNCHANGED <<hard, role, log, agreed, ballot, match, stored, msgs>>

\* Votes tell of the last committed entry, too: who has that very entry learns from it.
LearnCommit(i, m) ==
    /\ m \in msgs /\ m.to = i /\ m.type \in {"Vote", "VoteReply"}
    /\ role[i] # "leader" /\ Has(log[i], m.commit)
    /\ commit' = [commit EXCEPT ![i] = Max(@, m.commit[2])]
    /\ UNCHANGED <<hard, role, log, agreed, ballot, match, stored, msgs>>

\* A snapshot takes the place of a log that does not have all of it.
InstallSnapshot(i, m) ==
    /\ FromLeader(i, m, "Snapshot")
    /\ m.last[2] > commit[i] /\ ~Has(log[i], m.last)
    /\ log' = [log EXCEPT ![i] = [base |-> m.last[2], baseTerm |-> m.last[1], terms |-> <<>>,
                                  members |-> {[at |-> m.last[2], who |-> m.who]}]]
    /\ commit' = [commit EXCEPT ![i] = m.last[2]]
    /\ agreed' = [agreed EXCEPT ![i] = Max(@, m.last[2])]
    /\ UNCHANGED <<hard, role, ballot, match, stored, msgs>>

\* Or says of one that has it what is committed.
AcceptSnapshot(i, m) ==
    /\ FromLeader(i, m, "Snapshot")
    /\ m.last[2] <= commit[i] \/ Has(log[i], m.last)
    /\ commit' = [commit EXCEPT ![i] = Max(@, m.last[2])]
    /\ agreed' = [agreed EXCEPT ![i] = Max(@, m.last[2])]
    /\ UNCHANGED <<hard, role, log, ballot, match, stored, msgs>>

----------------------------------------------------------------------------
(* What may be said.                                                       *)

Says(i, m, type) == m.type = type /\ m.from = i /\ m.to # i /\ m.term = term[i]
Sent(m) ==
    /\ msgs' = msgs \cup {m}
    /\ UNCHANGED <<hard, role, log, commit, agreed, ballot, match, stored>>
Committed(i, id) == id[2] <= commit[i] /\ Has(log[i], id)

\* Pre-votes promise nothing. Who has no vote asks only to be led, in a group that may be asleep.
SendPreVote(i, m) ==
    /\ Says(i, m, "PreVote")
    /\ (role[i] = "precandidate" /\ m.id = round[i]) \/ (role[i] = "follower" /\ ~MayLead(i))
    /\ m.last = LastId(log[i]) /\ Sent(m)
SendPreVoteReply(i, m) == Says(i, m, "PreVoteReply") /\ Sent(m)

\* Lost in a crash, the end of its log would have been voted for all the same.
SendVote(i, m) ==
    /\ Says(i, m, "Vote") /\ role[i] = "candidate"
    /\ VoteIsDurable(i, i)
    /\ m.last = LastId(log[i]) /\ LogIsDurable(i, m.last[2])
    /\ Committed(i, m.commit) /\ Sent(m)
SendVoteReply(i, m) ==
    /\ Says(i, m, "VoteReply") /\ TermIsDurable(i)
    /\ m.granted => VoteIsDurable(i, m.to)
    /\ Committed(i, m.commit) /\ Sent(m)

\* Entries need not be durable to be sent on.
SendAppend(i, m) ==
    LET l == log[i]  from == Max(m.prev[2], l.base)
    IN  /\ Says(i, m, "Append") /\ role[i] = "leader"
        /\ TermIsDurable(i)
        /\ Has(l, m.prev)
        /\ End(m)[2] <= Last(l)
        /\ SubSeq(m.terms, from - m.prev[2] + 1, Len(m.terms)) = SubSeq(l.terms, from - l.base + 1, End(m)[2] - l.base)
        /\ {x \in m.members : x.at > from} = {x \in l.members : x.at > from /\ x.at <= End(m)[2]}
        /\ m.commit <= commit[i]
        /\ Sent(m)
\* "I have what you have, up to here, durably."
SendAppended(i, m) ==
    /\ Says(i, m, "Appended") /\ TermIsDurable(i)
    /\ m.upTo <= agreed[i]
    /\ LogIsDurable(i, m.upTo) /\ Sent(m)
\* Heartbeats, too.
SendCommit(i, m) ==
    /\ Says(i, m, "Commit") /\ role[i] = "leader" /\ TermIsDurable(i)
    /\ m.commit <= Min(commit[i], match[i][m.to]) /\ Sent(m)
SendSnapshot(i, m) ==
    /\ Says(i, m, "Snapshot") /\ role[i] = "leader" /\ TermIsDurable(i)
    /\ Committed(i, m.last)
    /\ m.who = Latest({x \in log[i].members : x.at <= m.last[2]}).who /\ Sent(m)
SendTimeoutNow(i, m) == Says(i, m, "TimeoutNow") /\ role[i] = "leader" /\ TermIsDurable(i) /\ Sent(m)
\* Whatever else: it speaks for a term.
SendOther(i, m) == Says(i, m, "Other") /\ TermIsDurable(i) /\ Sent(m)

----------------------------------------------------------------------------
\* One of these, with a node, a message, an index, a membership and a question's id.
Take(i, m, n, C, id) ==
    \/ Issue(i) \/ Persist(i) \/ Restart(i, n) \/ Compact(i, n)
    \/ Ask(i, id) \/ Timeout(i) \/ TakeOver(i, m) \/ UpdateTerm(i, m) \/ StepDown(i)
    \/ Grant(i, m) \/ CountPreVote(i, m) \/ CountVote(i, m) \/ CountOwnVote(i) \/ BecomeLeader(i)
    \/ ClientRequest(i) \/ Reconfigure(i, C) \/ CountAck(i, m) \/ AdvanceCommit(i, n)
    \/ Truncate(i, m, n) \/ AppendEntry(i, m) \/ Accept(i, m) \/ FollowCommit(i, m) \/ LearnCommit(i, m)
    \/ InstallSnapshot(i, m) \/ AcceptSnapshot(i, m)
    \/ SendPreVote(i, m) \/ SendPreVoteReply(i, m) \/ SendVote(i, m) \/ SendVoteReply(i, m)
    \/ SendAppend(i, m) \/ SendAppended(i, m) \/ SendCommit(i, m) \/ SendSnapshot(i, m)
    \/ SendTimeoutNow(i, m) \/ SendOther(i, m)

\* The sets of all messages, memberships and ids are infinite; who checks a run says which they were (steps.tla).
CONSTANTS Message, Membership
Next == \E i \in Server, m \in Message, n \in Nat, C \in Membership, id \in Nat \X Nat : Take(i, m, n, C, id)

Spec == Init /\ [][Next]_<<hard, role, log, commit, agreed, ballot, match, stored, msgs>>
=============================================================================
