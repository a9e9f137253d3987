------------------------------- MODULE steps -------------------------------
(***************************************************************************)
(* The steps of a run, held against quorate.tla.  The variables say     *)
(* whom and what each step is about, so nothing has to be searched for:    *)
(* StepNext is quorate's Next with these for what it says there is, and    *)
(* each Is... is one of its actions.                                       *)
(***************************************************************************)
EXTENDS quorate

VARIABLES
    action,   \* Which action a step is meant to be,
    node,     \* of which node,
    message,  \* about this message,
    index,    \* index,
    members,  \* membership,
    id        \* and question, where it is about one.

StepNext == Take(node', message', index', members', id')

IsIssue == Issue(node')
IsPersist == Persist(node')
IsRestart == Restart(node', index')
IsCompact == Compact(node', index')
IsAsk == Ask(node', id')
IsTimeout == Timeout(node')
IsTakeOver == TakeOver(node', message')
IsUpdateTerm == UpdateTerm(node', message')
IsStepDown == StepDown(node')
IsGrant == Grant(node', message')
IsCountPreVote == CountPreVote(node', message')
IsCountVote == CountVote(node', message')
IsCountOwnVote == CountOwnVote(node')
IsBecomeLeader == BecomeLeader(node')
IsClientRequest == ClientRequest(node')
IsReconfigure == Reconfigure(node', members')
IsCountAck == CountAck(node', message')
IsAdvanceCommit == AdvanceCommit(node', index')
IsTruncate == Truncate(node', message', index')
IsAppendEntry == AppendEntry(node', message')
IsAccept == Accept(node', message')
IsFollowCommit == FollowCommit(node', message')
IsLearnCommit == LearnCommit(node', message')
IsInstallSnapshot == InstallSnapshot(node', message')
IsAcceptSnapshot == AcceptSnapshot(node', message')
IsSendPreVote == SendPreVote(node', message')
IsSendPreVoteReply == SendPreVoteReply(node', message')
IsSendVote == SendVote(node', message')
IsSendVoteReply == SendVoteReply(node', message')
IsSendAppend == SendAppend(node', message')
IsSendAppended == SendAppended(node', message')
IsSendCommit == SendCommit(node', message')
IsSendSnapshot == SendSnapshot(node', message')
IsSendTimeoutNow == SendTimeoutNow(node', message')
IsSendOther == SendOther(node', message')
=============================================================================
