// The panel: what the event at the cursor says, and what every node is there. All text is set as text, never as HTML.

const MOST_LINES = 8;

/** An element with text or elements in it. */
function make(tag, attributes, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "on") element.addEventListener("click", value);
    else if (value !== undefined) element.setAttribute(name, value);
  }
  element.append(...inside.filter(part => part !== null && part !== undefined));
  return element;
}

const link = (text, event) => make("button", { class: "link", "data-event": event, on: () => goTo(event) }, text);

function showDetails() {
  if (!count) return;
  const event = events[cursor], box = $("event");
  const where = event.n ? `n${event.n}` : "the cluster";
  const parts = [
    make("h2", {}, `${where}: ${event.k}`),
    make("div", { class: "dim" }, `event ${(cursor + 1 + data.forgotten).toLocaleString("en")} of ${(count + data.forgotten).toLocaleString("en")} · ${moment(event.t, 0)}${skew(event)}`),
    make("div", { class: "said" }, event.l),
  ];
  if (cursor === violationAt) parts.push(make("div", { class: "flag" }, `⚑ Here ${violation.invariant} is violated.`));
  if (event.m !== undefined) parts.push(...cameFrom(letters.get(event.m)));
  const list = (title, items) => {
    if (!items.length) return;
    // A leader may answer a hundred reads at once.
    const rest = items.splice(items.length > MOST_LINES + 2 ? MOST_LINES : items.length);
    const lines = make("ul", {}, ...items);
    if (rest.length) {
      const more = make("li", {}, make("button", { class: "link", on: () => more.replaceWith(...rest) }, `${rest.length} more`));
      lines.append(more);
    }
    parts.push(make("h3", {}, title), lines);
  };
  list("Does", (event.d || []).map(line => make("li", {}, line)));
  list("Sends", (sends.get(cursor) || []).map(goesTo));
  list("Requests", requestsOf(cursor));
  list("Changes", changesOf(cursor));
  box.replaceChildren(...parts);
  document.querySelectorAll(".cur-node").forEach(element => { element.textContent = event.n ? `n${event.n}` : "–"; });
  showNodes();
}

/** How far a node's clock has gone ahead of true time, or behind, since its first step here. */
const firstClock = ofNode.map(list => list.find(i => events[i].c !== undefined));
function skew(event) {
  const first = events[firstClock[event.n]];
  if (event.c === undefined || !first) return "";
  const ahead = event.c - first.c - (event.t - first.t);
  if (Math.abs(ahead) < 100) return "";
  return ` · its clock has ${ahead > 0 ? "gained" : "lost"} ${duration(Math.abs(ahead))} since ${moment(first.t, 1e6)}`;
}

function cameFrom(letter) {
  if (!letter || letter.s === undefined) return [make("div", { class: "dim" }, "sent before this picture begins")];
  const text = `sent ${duration(events[cursor].t - letter.s)} before, at ${moment(letter.s, 0)}`;
  const copies = letter.taken.length > 1 ? ` (taken up ${letter.taken.length} times)` : "";
  return [make("div", {}, letter.sender === undefined ? text : link(text, letter.sender), copies)];
}

function goesTo(letter) {
  const says = `n${letter.o} ${letter.k} T${letter.t}: ${letter.l} `;
  const fates = letter.taken.map(i => link(`taken up ${duration(times[i] - letter.s)} later`, i));
  (letter.x || []).forEach(([at, why]) => fates.push(make("span", { class: "flag" }, `✕ ${why}${at > letter.s ? ` ${duration(at - letter.s)} later` : ""}`)));
  if (!fates.length) fates.push(make("span", { class: "dim" }, "under way to the end, or its receiver was gone"));
  return make("li", {}, says, ...fates.flatMap((fate, i) => (i ? [" · ", fate] : [fate])));
}

const tokenNames = (first, n) => (n === 1 ? `t${first}` : `t${first}..t${first + n - 1}`);

/** Where what was asked here was resolved, and the other way round. */
function requestsOf(i) {
  const event = events[i], items = [];
  if (event.q) {
    const [first, n] = event.q;
    const ends = resolutions.filter(end => end.node === event.n && end.i >= i && overlaps(first, n, end.first, end.n));
    for (const end of ends) items.push(make("li", {}, `${tokenNames(end.first, end.n)} `, end.i === i ? end.how : link(`${end.how}, ${duration(times[end.i] - event.t)} later`, end.i)));
    if (!ends.length) items.push(make("li", { class: "dim" }, `${tokenNames(first, n)}: not resolved in this picture`));
  }
  for (const [first, n, how] of event.z || []) {
    if (event.q && overlaps(first, n, ...event.q)) continue;
    const asked = ofNode[event.n].find(at => at <= i && events[at].q && overlaps(first, n, ...events[at].q));
    items.push(make("li", {}, `${tokenNames(first, n)} ${how} `, asked === undefined ? null : link(`asked ${duration(event.t - times[asked])} before`, asked)));
  }
  return items;
}

const NAMES = { u: "life", i: "incarnation", t: "term", r: "role", v: "vote", l: "leader", c: "commit", a: "applied", d: "durable", b: "base", n: "last", s: "snapshot", g: "log", m: "memberships", k: "disk", p: "peers", e: "lease" };
const LIVES = { "-": "not there yet", D: "down", U: "up", P: "stopped", X: "store failed" };

function inWords(field, value) {
  if (field === "u") return LIVES[value];
  if (field === "r") return ROLES[value];
  if (field === "v" || field === "l") return value ? `n${value}` : "none";
  if (field === "b") return value[0] ? `${value[0]}@T${value[1]}` : "0";
  if (field === "g") return value.slice(-4).map(([first, term]) => `${first}…@T${term}`).join(" ") || "empty";
  if (field === "m") return value.slice(-2).map(([index, text]) => `${index}: ${text}`).join("; ");
  if (field === "k") return `T${value[0]} vote ${value[1] ? `n${value[1]}` : "none"} last ${value[2]}`;
  if (field === "p") return value.map(([id, match]) => `n${id}:${match}`).join(" ") || "none";
  if (field === "e") return value ? `until ${moment(value, 0)}` : "none";
  return String(value);
}

function changesOf(i) {
  const event = events[i];
  if (!event.x || !event.n) return [];
  const before = stateBefore(i);
  return Object.keys(event.x).map(field => {
    // What a leader knows of its peers: only of those of whom it has learnt something.
    if (field === "p" && before.p.length === event.x.p.length && before.p.length) {
      const news = event.x.p.filter((peer, at) => peer.join() !== before.p[at].join());
      const old = id => before.p.find(peer => peer[0] === id) || [id, 0, 0, "?"];
      return make("li", { class: "changed" }, ...news.flatMap(([id, match, next, mode]) => [`n${id}: match ${old(id)[1]} → `, make("b", {}, String(match)), `, next ${old(id)[2]} → `, make("b", {}, String(next)), mode === old(id)[3] ? " " : ` (${MODES[mode]}) `]));
    }
    return make("li", { class: "changed" }, `${NAMES[field]} ${inWords(field, before[field])} → `, make("b", {}, inWords(field, event.x[field])));
  });
}

const MODES = { p: "probe", r: "replicate", s: "snapshot" };

function showNodes() {
  const head = make("tr", {}, ...["", "role", "term", "vote", "lead", "last", "commit", "appl.", "dur.", "disk"].map(name => make("th", { scope: "col" }, name)));
  const all = present(), members = all.map(({ state }) => state.m.length && state.m[state.m.length - 1][1]);
  // Mostly they agree on who they are: then it is said once.
  const agree = members.every(text => text === members[0]);
  const rows = all.flatMap(({ node, state }) => nodeRows(node, state, !agree));
  const caption = agree && members[0] ? make("div", { class: "dim" }, `all of them have ${members[0]}`) : null;
  $("nodes").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)), caption || "");
}

function nodeRows(node, state, withMembers) {
  const here = events[cursor].n === node, changed = here && events[cursor].x ? events[cursor].x : {};
  const cell = (text, field) => make("td", { class: field in changed ? "new" : undefined }, text);
  const gone = state.u === "D";
  const role = gone || state.u === "X" || state.u === "P" ? LIVES[state.u] : ROLES[state.r];
  const chip = make("span", { class: "chip" }, gone ? "–" : state.r);
  if (!gone) {
    chip.style.background = bandColour(state.r, state.t);
    chip.style.color = bandInk(state.r, state.t);
  }
  const none = "–";
  const classes = [here ? "current" : "", concerned.nodes.has(node) ? "concerned" : "", gone ? "down" : ""].join(" ");
  const main = make("tr", { class: classes, "data-node": String(node) },
    make("td", {}, `n${node}`),
    make("td", { title: role, class: "r" in changed || "u" in changed ? "new" : undefined }, chip, state.u === "P" ? " stopped" : state.u === "X" ? " failed" : ""),
    cell(`T${state.t}`, "t"), cell(state.v ? `n${state.v}` : none, "v"), cell(state.l ? `n${state.l}` : none, "l"), cell(String(state.n), "n"),
    cell(gone ? none : String(state.c), "c"), cell(gone ? none : String(state.a), "a"), cell(gone ? none : String(state.d), "d"),
    cell(`T${state.k[0]}${state.k[1] ? `·n${state.k[1]}` : ""}·${state.k[2]}`, "k"));
  const notes = [];
  const membership = state.m[state.m.length - 1];
  if (membership && (withMembers || (membership[0] > state.c && !gone))) notes.push(`${membership[1]} (since ${membership[0]}${membership[0] > state.c && !gone ? ", not committed" : ""})`);
  if (state.s) notes.push(`snapshot at ${state.s}, log after ${state.b[0]}`);
  if (state.p.length) notes.push(`match ${state.p.map(([id, match, , mode]) => `n${id}:${match}${mode === "r" ? "" : ` ${MODES[mode]}`}`).join(", ")}`);
  if (state.e > cursorTime()) notes.push(`lease for ${duration(Math.round(state.e - cursorTime()))} more`);
  if (!notes.length) return [main];
  return [main, make("tr", { class: `sub ${classes}` }, make("td", {}, ""), make("td", { colspan: "9" }, notes.join(" · ")))];
}

function tell(x, y, text) {
  const tip = $("tip");
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - tip.offsetWidth - 6))}px`;
  tip.style.top = `${y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 18}px`;
}

const eventWords = i => `${moment(times[i], 0)} · ${events[i].n ? `n${events[i].n}` : "cluster"} · ${events[i].l}`;
function arrowWords(arrow) {
  const { letter } = arrow;
  const fate = arrow.end >= 0 ? `, ${duration(arrow.t1 - arrow.t0)} on its way` : arrow.lost ? `, lost: ${arrow.lost}` : ", never taken up";
  return `${letter.k} T${letter.t}, n${letter.f} → n${letter.o}: ${letter.l}${letter.s === undefined ? ", sent before this picture" : fate}`;
}
