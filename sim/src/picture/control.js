// What a reader does: step, play, zoom, move, search, filter.

/** Puts the cursor on an event. */
function goTo(i, keep) {
  if (!count) return;
  cursor = Math.max(0, Math.min(count - 1, i));
  if (!keep) follow();
  showDetails();
  showMatches();
  redraw();
}

/** The next event that is shown, in one direction; of one node alone, if it is given. */
function step(direction, node) {
  for (let i = cursor + direction; i >= 0 && i < count; i += direction) {
    if (isShown(i) && (node === undefined || events[i].n === node)) return goTo(i);
  }
  pause();
  return undefined;
}

// ---- playing.

let playing = null;
function pause() {
  if (playing === null) return;
  cancelAnimationFrame(playing.frame);
  playing = null;
  showPlaying();
}

function showPlaying() {
  $("play").textContent = playing === null ? "▶" : "❚❚";
  $("play").setAttribute("aria-label", playing === null ? "Play" : "Pause");
}

function play() {
  if (playing !== null) return pause();
  if (cursor >= count - 1) goTo(0);
  playing = { time: cursorTime(), owed: 0, last: performance.now(), frame: 0 };
  const advance = now => {
    if (playing === null) return;
    const speed = $("speed").value, rate = Number(speed.slice(1)), passed = Math.min(now - playing.last, 250);
    playing.last = now;
    if (speed[0] === "e") {
      playing.owed += (passed / 1000) * rate;
      for (; playing.owed >= 1 && playing !== null; playing.owed--) step(1);
    } else {
      playing.time += passed * 1000 * rate;
      const i = above(times, playing.time) - 1;
      if (i > cursor) goTo(i);
    }
    if (playing === null) return;
    if (cursor >= count - 1) return pause();
    playing.frame = requestAnimationFrame(advance);
  };
  playing.frame = requestAnimationFrame(advance);
  showPlaying();
  return undefined;
}

// ---- searching.

let query = "";
function find(text) {
  query = text;
  matches = search(text);
  showMatches();
  redraw();
}

function showMatches() {
  if (!query.trim()) {
    $("matches").textContent = "";
    return;
  }
  const at = from(matches, cursor), here = matches[at] === cursor;
  $("matches").textContent = matches.length ? `${here ? at + 1 : "–"} of ${matches.length}` : "none";
}

function nextMatch(direction) {
  if (!matches.length) return;
  const at = direction > 0 ? above(matches, cursor) : from(matches, cursor) - 1;
  goTo(matches[(at + matches.length) % matches.length]);
}

/** From one end of a message to the other; what was sent goes to where it was taken up first. */
function otherEnd() {
  const letter = letters.get(events[cursor].m);
  if (letter && letter.sender !== undefined) return goTo(letter.sender);
  const taken = (sends.get(cursor) || []).find(letter => letter.taken.length && shown[letter.group]);
  if (taken) goTo(taken.taken[0]);
  return undefined;
}

// ---- filters.

function buildFilters() {
  for (const group of GROUPS) {
    const box = make("input", { type: "checkbox", id: `f-${group.name}` });
    box.checked = shown[group.name];
    box.addEventListener("change", () => { shown[group.name] = box.checked; redraw(); });
    const dash = make("i", { "aria-hidden": "true" });
    dash.style.background = group.name === "internal" ? "var(--dim)" : `var(--${group.name})`;
    const title = group.kinds.join(", ") || "Writes that became durable, entries applied, ticks that brought nothing: marks and steps";
    $("filters").append(make("label", { title }, box, dash, group.title));
  }
}

// ---- the pointer.

function onDiagram() {
  const canvas = $("diagram");
  let drag = null;
  canvas.addEventListener("pointerdown", event => {
    drag = { x: event.clientX, t0: view.t0, t1: view.t1, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", event => {
    if (!drag) return hover(event);
    if (Math.abs(event.clientX - drag.x) > 3) drag.moved = true;
    if (!drag.moved) return undefined;
    const by = (event.clientX - drag.x) / place.scale;
    tell(0, 0, "");
    return setView(drag.t0 - by, drag.t1 - by);
  });
  canvas.addEventListener("pointerup", event => {
    if (drag && !drag.moved) click(event.offsetX, event.offsetY);
    drag = null;
  });
  canvas.addEventListener("pointerleave", () => { hovered = null; tell(0, 0, ""); redraw(); });
  canvas.addEventListener("dblclick", () => closeUp());
  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      const by = ((event.deltaX || event.deltaY) / place.scale);
      return setView(view.t0 + by, view.t1 + by);
    }
    // A pinch on a touchpad comes as a wheel with the Control key held, in small steps.
    return zoom(Math.exp(event.deltaY * (event.ctrlKey ? 0.01 : 0.0016)), tOf(Math.max(event.offsetX, GUTTER)));
  }, { passive: false });
}

function hover(event) {
  const found = hit(event.offsetX, event.offsetY), arrow = found && found.arrow ? found.arrow : null;
  if (arrow !== hovered) { hovered = arrow; redraw(); }
  tell(event.clientX, event.clientY, !found ? "" : arrow ? arrowWords(arrow) : eventWords(found.event));
}

function click(x, y) {
  pause();
  const found = hit(x, y);
  if (found && found.event !== undefined) return goTo(found.event, true);
  if (found) {
    // The end of an arrow that is nearer, as far as there is an event at it.
    const { arrow, late } = found, { sender } = arrow.letter;
    const target = (late && arrow.end >= 0) || sender === undefined ? arrow.end : sender;
    if (target >= 0) return goTo(target, true);
  }
  return x >= GUTTER ? goTo(Math.max(0, above(times, tOf(x)) - 1), true) : undefined;
}

function onOverview() {
  const canvas = $("overview");
  const move = event => {
    const t = firstTime + ((event.offsetX - GUTTER) / (canvas.clientWidth - GUTTER)) * (lastTime - firstTime), half = (view.t1 - view.t0) / 2;
    setView(t - half, t + half);
  };
  canvas.addEventListener("pointerdown", event => { canvas.setPointerCapture(event.pointerId); move(event); });
  canvas.addEventListener("pointermove", event => { if (event.buttons) move(event); });
}

function onLogs() {
  const canvas = $("logs");
  let drag = null;
  const moveTo = first => { logStart = Math.max(1, Math.round(first)); redraw(); };
  canvas.addEventListener("pointerdown", event => { drag = { x: event.clientX, first: logShape.first }; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", event => {
    if (drag) return moveTo(drag.first - (event.clientX - drag.x) / CELL);
    return tell(event.clientX, event.clientY, cellWords(event.offsetX, event.offsetY));
  });
  canvas.addEventListener("pointerup", () => { drag = null; });
  canvas.addEventListener("pointerleave", () => tell(0, 0, ""));
  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    moveTo(logShape.first + Math.sign(event.deltaY || event.deltaX) * 3);
  }, { passive: false });
  $("log-back").addEventListener("click", () => moveTo(logShape.first - Math.floor(logShape.columns / 2)));
  $("log-on").addEventListener("click", () => moveTo(logShape.first + Math.floor(logShape.columns / 2)));
  $("log-auto").addEventListener("click", () => { logStart = null; redraw(); });
  $("log-legend").textContent = "number: term · thick line: committed, second line: applied · dashed: not durable · ◆ membership · ≠ not what will stay · ▾ leader's match";
}

// ---- keys and buttons.

const goToViolation = () => { goTo(violationAt); closeUp(30); };

const KEYS = {
  ArrowRight: event => step(1, event.shiftKey && events[cursor].n ? events[cursor].n : undefined),
  ArrowLeft: event => step(-1, event.shiftKey && events[cursor].n ? events[cursor].n : undefined),
  " ": play,
  "+": () => zoom(0.5),
  "=": () => zoom(0.5),
  "-": () => zoom(2),
  0: fit,
  Home: () => goTo(0),
  End: () => goTo(count - 1),
  "/": () => $("search").focus(),
  n: () => nextMatch(1),
  N: () => nextMatch(-1),
  m: otherEnd,
  h: () => $("f-heartbeat").click(),
  v: () => { if (violation) goToViolation(); },
  "?": () => $("help").showModal(),
};

function onKeys() {
  addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    const typing = event.target.matches("input[type=search], select");
    if (event.target.id === "search" && event.key === "Enter") return nextMatch(event.shiftKey ? -1 : 1);
    if (event.target.id === "search" && event.key === "Escape") return $("search").blur();
    // A focused button keeps its Space.
    if (typing || (event.key === " " && event.target.matches("button, input"))) return;
    const act = KEYS[event.key];
    if (!act) return;
    event.preventDefault();
    if (event.key !== " ") pause();
    act(event);
  });
  const buttons = {
    play, prev: () => step(-1), next: () => step(1),
    "prev-node": () => step(-1, events[cursor].n || undefined), "next-node": () => step(1, events[cursor].n || undefined),
    "zoom-in": () => zoom(0.5), "zoom-out": () => zoom(2), fit,
    "go-violation": goToViolation,
    "match-prev": () => nextMatch(-1), "match-next": () => nextMatch(1),
    "help-open": () => $("help").showModal(),
  };
  for (const [id, act] of Object.entries(buttons)) $(id).addEventListener("click", () => act());
  $("search").addEventListener("input", () => find($("search").value));
}

// ---- the beginning.

function showHead() {
  const forgotten = data.forgotten ? `, after ${data.forgotten.toLocaleString("en")} earlier ones that were left out` : "";
  $("summary").textContent = `${count.toLocaleString("en")} events${forgotten} · ${letters.size.toLocaleString("en")} messages · ${nodes} nodes · ${moment(firstTime, 1e6)} to ${moment(lastTime, 1e6)}`;
  $("verdict").textContent = violation ? `${violation.invariant} violated` : "no violation";
  $("verdict").className = violation ? "bad" : "good";
  if (!violation) return;
  $("violation").hidden = $("go-violation").hidden = false;
  $("v-id").textContent = violation.invariant;
  $("v-rule").textContent = violation.explained.rule;
  $("v-what").textContent = `${moment(violation.at, 0)}: ${violation.what}`;
  $("v-look").textContent = violation.explained.look;
  const ask = text => make("button", { title: `Search for ${text}`, on: () => { $("search").value = text; find(text); } }, text);
  $("v-marks").replaceChildren(
    ...[...concerned.nodes].map(node => ask(`n${node}`)),
    ...[...concerned.terms].map(term => ask(`T${term}`)),
    ...[...concerned.tokens].map(token => ask(`t${token}`)),
    ...[...concerned.indexes].map(index => make("button", { title: `Show ${index} in the logs`, on: () => { logStart = Math.max(1, index - 10); redraw(); } }, `index ${index}`)),
  );
}

function begin() {
  readTheme();
  showHead();
  buildFilters();
  onDiagram();
  onOverview();
  onLogs();
  onKeys();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readTheme(); showDetails(); redraw(); });
  addEventListener("resize", redraw);
  if (!count) {
    $("event").textContent = "Nothing has happened.";
  } else if (violation) {
    goToViolation();
  } else {
    fit();
    goTo(0, true);
  }
  drawAll();
}

// For whoever drives the page from outside: what is looked at, and how long drawing takes.
window.picture = {
  state: () => ({ cursor, count, t0: view.t0, t1: view.t1, matches: matches.length, playing: playing !== null, violationAt, shown: { ...shown } }),
  median: times => {
    const spent = Array.from({ length: times }, () => { 
      const start = performance.now();
      drawAll();
      // Drawing is put off until somebody looks at what was drawn.
      for (const id of ["diagram", "overview", "logs"]) $(id).getContext("2d").getImageData(0, 0, 1, 1);
      return performance.now() - start;
     });
    return spent.sort((one, other) => one - other)[times >> 1];
  },
  termAt: (node, index) => termAt(stateAt(node, cursor), index),
  nodeState: node => stateAt(node, cursor),
  place: node => ({ y: yOf(node), x: xOf(cursorTime()) }),
};

begin();
