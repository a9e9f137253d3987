"use strict";
// What was recorded, made ready to be asked: any node's state at any event, and what lies between two moments.

const data = JSON.parse(document.getElementById("data").textContent);
const events = data.events;
const count = events.length;
const nodes = data.before.length;
const times = Float64Array.from(events, event => event.t);
const violation = data.violation;
const firstTime = count ? times[0] : 0;
const lastTime = Math.max(count ? times[count - 1] : 1, violation ? violation.at : 0, firstTime + 1);

/** The first place in a sorted list whose value is above `value`. */
function above(list, value, length = list.length) {
  let low = 0, high = length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] <= value) low = middle + 1; else high = middle;
  }
  return low;
}

/** The first place whose value is not below `value`. */
function from(list, value, length = list.length) {
  let low = 0, high = length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] < value) low = middle + 1; else high = middle;
  }
  return low;
}

// ---- states: `after[i]` is the state of the node of event `i`, after it. Unchanged ones are shared.

const after = new Array(count);
const ofNode = Array.from({ length: nodes + 1 }, () => []);
{
  const now = [null, ...data.before];
  events.forEach((event, i) => {
    if (event.n && event.x) now[event.n] = { ...now[event.n], ...event.x };
    after[i] = now[event.n];
    ofNode[event.n].push(i);
  });
}

/** A node's state once event `i` has happened. */
function stateAt(node, i) {
  const at = above(ofNode[node], i);
  return at ? after[ofNode[node][at - 1]] : data.before[node - 1];
}

/** A node's state just before its own event `i`. */
function stateBefore(i) {
  const node = events[i].n, at = from(ofNode[node], i);
  return at ? after[ofNode[node][at - 1]] : data.before[node - 1];
}

// ---- bands: stretches of time in which a node plays one part in one term.

const bands = [];
const leases = [];
for (let node = 1; node <= nodes; node++) {
  const list = [], leased = [];
  let state = data.before[node - 1];
  let band = { t0: firstTime, life: state.u, role: state.r, term: state.t };
  const end = t => { band.t1 = t; if (band.t1 > band.t0) list.push(band); };
  const lease = (t, until) => {
    const last = leased[leased.length - 1];
    if (last && last[1] >= t) last[1] = Math.max(last[1], until); else leased.push([t, until]);
  };
  if (state.e > firstTime) lease(firstTime, state.e);
  for (const i of ofNode[node]) {
    const next = after[i];
    if (next.u !== band.life || next.r !== band.role || next.t !== band.term) {
      end(times[i]);
      band = { t0: times[i], life: next.u, role: next.r, term: next.t };
    }
    if (next.e !== state.e) {
      if (next.e > times[i]) lease(times[i], next.e);
      // It lost its lease, or its part: what was left of it is void.
      else if (leased.length) leased[leased.length - 1][1] = Math.min(leased[leased.length - 1][1], times[i]);
    }
    state = next;
  }
  end(lastTime + 1);
  bands.push({ list, starts: list.map(band => band.t0) });
  leases.push({ list: leased, starts: leased.map(lease => lease[0]) });
}

// ---- messages.

const GROUPS = [
  { name: "election", title: "elections", kinds: ["PreVote", "PreVoteReply", "Vote", "VoteReply", "TimeoutNow"] },
  { name: "append", title: "appends", kinds: ["Append", "Appended", "Conflict"] },
  { name: "heartbeat", title: "heartbeats", kinds: ["Heartbeat", "HeartbeatReply"] },
  { name: "commit", title: "commits", kinds: ["Commit"] },
  { name: "read", title: "reads", kinds: ["ReadIndex", "ReadIndexReply"] },
  { name: "snapshot", title: "snapshots", kinds: ["InstallSnapshot"] },
  { name: "internal", title: "disk & apply", kinds: [] },
];
const groupOf = {};
GROUPS.forEach(group => group.kinds.forEach(kind => { groupOf[kind] = group.name; }));

const letters = new Map(data.letters.map(letter => [letter.i, letter]));
data.letters.forEach(letter => { letter.group = groupOf[letter.k]; letter.taken = []; });

// An arrow for each copy: `end` is the event that took it up, or -1 for one that was lost or is still under way.
const arrows = [];
events.forEach((event, i) => {
  const letter = letters.get(event.m);
  if (!letter) return;
  letter.taken.push(i);
  const t0 = letter.s === undefined ? firstTime : letter.s;
  arrows.push({ letter, t0, t1: event.t, end: i, lost: null });
});
data.letters.forEach(letter => {
  (letter.x || []).forEach(([at, why]) => arrows.push({ letter, t0: letter.s ?? at, t1: at, end: -1, lost: why }));
  if (!letter.taken.length && !letter.x && letter.s !== undefined) {
    arrows.push({ letter, t0: letter.s, t1: lastTime, end: -1, lost: null });
  }
});
arrows.forEach(arrow => { (arrow.letter.arrows ??= []).push(arrow); });
arrows.sort((one, other) => one.t0 - other.t0);
const arrowStarts = Float64Array.from(arrows, arrow => arrow.t0);
// The latest end of this arrow and all before it: from there on backwards nothing reaches a later moment.
const arrowEnds = new Float64Array(arrows.length);
arrows.reduce((latest, arrow, i) => (arrowEnds[i] = Math.max(latest, arrow.t1)), -Infinity);

// The event in which each message was sent: the sender's step at that moment.
const sends = new Map();
data.letters.forEach(letter => {
  if (letter.s === undefined) return;
  const list = ofNode[letter.f];
  // The last of the sender's events that isn't later.
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[list[middle]] <= letter.s) low = middle + 1; else high = middle;
  }
  let at = low - 1;
  // A write that became durable, or a crash, in the same µs sends nothing.
  while (at >= 0 && times[list[at]] === letter.s && events[list[at]].c === undefined) at--;
  if (at < 0 || times[list[at]] !== letter.s) return;
  letter.sender = list[at];
  if (!sends.has(list[at])) sends.set(list[at], []);
  sends.get(list[at]).push(letter);
});

// ---- requests: where a token was asked for, and where it was resolved.

const resolutions = [];
events.forEach((event, i) => (event.z || []).forEach(([first, n, how]) => resolutions.push({ first, n, how, i, node: event.n })));
const overlaps = (first, n, other, m) => first < other + m && other < first + n;

// ---- which events are shown.

const shown = {};
GROUPS.forEach(group => { shown[group.name] = true; });
shown.heartbeat = count <= 2000;
shown.internal = count <= 2000;

/** The filter that an event belongs to; none for what is always shown. */
function groupOfEvent(i) {
  const event = events[i];
  if (event.m !== undefined) {
    // What a message brought about, if it is more than a message, is not to be missed.
    return event.l.includes(" → ") ? "" : (letters.get(event.m) || {}).group || "";
  }
  const dull = ["persisted", "applied", "durable", "loaded"].includes(event.k) || (event.k === "tick" && !event.l.includes(" → "));
  return dull ? "internal" : "";
}
const eventGroups = events.map((_, i) => groupOfEvent(i));
const isShown = i => eventGroups[i] === "" || shown[eventGroups[i]];

// ---- search.

const texts = new Array(count);
function textOf(i) {
  if (texts[i] === undefined) {
    const event = events[i];
    const sent = (sends.get(i) || []).map(letter => `sends ${letter.k} T${letter.t} to n${letter.o}: ${letter.l}`);
    texts[i] = [`n${event.n}`, event.k, event.l, ...(event.d || []), ...sent, ...(event.z || []).map(end => end[2])].join("\n");
  }
  return texts[i];
}

/** What decides whether an event has a word of a query. */
function wordTest(word) {
  const token = /^t(\d+)$/.exec(word);
  if (token) {
    const number = Number(token[1]);
    const has = (first, n) => first <= number && number < first + n;
    return i => (events[i].q && has(...events[i].q)) || (events[i].z || []).some(([first, n]) => has(first, n));
  }
  // `n3` isn't `n31`, and `T5` isn't a token.
  const escaped = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const name = /^(T|n|w)\d+$|@T\d+$/.test(word);
  const pattern = name ? new RegExp(`(?<![\\w@])${word.startsWith("T") ? "(?:\\d+@)?" : ""}${escaped}(?!\\w)`) : new RegExp(escaped, "i");
  return i => pattern.test(textOf(i));
}

function search(query) {
  const tests = query.trim().split(/\s+/).filter(Boolean).map(wordTest);
  const found = [];
  if (tests.length) for (let i = 0; i < count; i++) if (tests.every(test => test(i))) found.push(i);
  return found;
}

// ---- whom and what a violation's words concern.

function concerns(text) {
  const found = { nodes: new Set(), indexes: new Set(), terms: new Set(), tokens: new Set() };
  // As most words name them, in this order: what is taken is blanked, so that what is left can only be an index.
  let rest = text;
  const take = (pattern, to, group = 1) => {
    rest = rest.replace(pattern, (...parts) => { to.forEach((set, at) => set.add(Number(parts[group + at]))); return " ".repeat(parts[0].length); });
  };
  take(/\b(\d+)@T(\d+)/g, [found.indexes, found.terms]);
  take(/\bnodes (\d+) and (\d+)/g, [found.nodes, found.nodes]);
  take(/\bvotes for (\d+) and (\d+)/g, [found.nodes, found.nodes]);
  take(/\bnodes? (\d+)/g, [found.nodes]);
  take(/\bn(\d+)\b/g, [found.nodes]);
  take(/\b(?:request|proposal|change) t?(\d+)/g, [found.tokens]);
  take(/\bt(\d+)\b/g, [found.tokens]);
  take(/\b[Tt]erm:? (?:T)?(\d+)/g, [found.terms]);
  take(/\bT(\d+)\b/g, [found.terms]);
  take(/\bi(\d+)\b/g, [found.indexes]);
  take(/\b(?:up to|entry|index|at|commits|commit|applies|truncates|but) (\d+)\b/g, [found.indexes]);
  for (const set of Object.values(found)) set.delete(NaN);
  for (const node of found.nodes) if (node < 1 || node > nodes) found.nodes.delete(node);
  return found;
}
const concerned = violation ? concerns(violation.what) : concerns("");
// The last event that is not after the violation: the step that broke it, for a run ends there.
const violationAt = violation ? Math.max(0, above(times, violation.at) - 1) : -1;
