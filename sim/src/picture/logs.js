// Every node's log at the cursor, entry under entry, so that what differs is seen.

const CELL = 27;
const ROW = 25;
const HEAD = 16;
const LABEL = 132;

/** The first index that is shown; `null`: wherever the logs end. */
let logStart = null;

/** The term of a node's entry; 0 if its log has none there. */
function termAt(state, index) {
  if (index <= state.b[0]) return index === state.b[0] ? state.b[1] : 0;
  if (index > state.n) return 0;
  let low = 0, high = state.g.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (state.g[middle][0] <= index) low = middle + 1; else high = middle;
  }
  return low ? state.g[low - 1][1] : 0;
}

const present = () => Array.from({ length: nodes }, (_, i) => ({ node: i + 1, state: stateAt(i + 1, cursor) })).filter(({ state }) => state.u !== "-");

/** Where to begin so that what matters is in sight: the index that the violation speaks of, or the ends of the logs. */
function firstIndex(rows, columns) {
  if (logStart !== null) return logStart;
  const last = Math.max(...rows.map(({ state }) => state.n), 1);
  const named = cursor === violationAt ? [...concerned.indexes].filter(index => index <= last + 1) : [];
  if (named.length) {
    const middle = Math.round((Math.min(...named) + Math.max(...named)) / 2);
    return Math.max(1, Math.min(middle - Math.floor(columns / 2), last - columns + 3));
  }
  return Math.max(1, last - columns + 3);
}

let logShape = { first: 1, columns: 1, rows: [] };

function drawLogs() {
  const canvas = $("logs"), rows = count ? present() : [];
  const wanted = `${HEAD + rows.length * ROW + 6}px`;
  if (canvas.style.height !== wanted) {
    canvas.style.height = wanted;
    // What is left is the diagram's.
    drawDiagram();
  }
  const { context, width, height } = prepare(canvas);
  context.fillStyle = theme.bg;
  context.fillRect(0, 0, width, height);
  if (!rows.length) return;
  const columns = Math.max(1, Math.floor((width - LABEL) / CELL)), first = firstIndex(rows, columns);
  logShape = { first, columns, rows };
  const leader = rows.filter(({ state }) => state.r === "L" && state.u !== "D").sort((one, other) => other.state.t - one.state.t)[0];
  const matched = new Map(leader ? leader.state.p.map(([id, match]) => [id, match]) : []);
  const right = [];
  for (let column = 0; column < columns; column++) {
    right.push(rightTerm(rows, leader, first + column));
    drawIndex(context, first + column, LABEL + column * CELL);
  }
  rows.forEach(({ node, state }, row) => {
    const y = HEAD + row * ROW;
    drawLogName(context, node, state, y);
    for (let column = 0; column < columns; column++) {
      const term = termAt(state, first + column), differs = right[column] !== null && term !== right[column];
      drawCell(context, state, first + column, LABEL + column * CELL, y, differs);
    }
    drawSnapshot(context, state, first, columns, y);
    const match = matched.get(node);
    if (match !== undefined && match >= first && match < first + columns) {
      context.fillStyle = theme.ink;
      context.fillText("▾", LABEL + (match - first) * CELL + CELL / 2 - 5, y - 1);
    }
  });
}

/**
 * The term that all logs will have at an index, if some of them have another now: of what is committed there, or else of what the
 * latest leader has. `null`: they agree. 0: nobody can say, or there are two committed entries.
 */
function rightTerm(rows, leader, index) {
  const terms = new Set(rows.map(({ state }) => termAt(state, index)).filter(Boolean));
  if (terms.size < 2) return null;
  const committed = rows.filter(({ state }) => state.u !== "D" && index <= state.c).map(({ state }) => termAt(state, index)).filter(Boolean);
  if (committed.length) return new Set(committed).size === 1 ? committed[0] : 0;
  return leader ? termAt(leader.state, index) : 0;
}

function drawIndex(context, index, x) {
  const named = concerned.indexes.has(index);
  if (!named && (index % 5 || concerned.indexes.has(index - 1) || concerned.indexes.has(index + 1))) return;
  context.fillStyle = named ? theme.bad : theme.dim;
  context.font = `${named ? "bold " : ""}10px system-ui, 'DejaVu Sans', sans-serif`;
  context.textAlign = "center";
  const alone = !concerned.indexes.has(index - 1) && !concerned.indexes.has(index + 1);
  context.fillText(named && alone ? `⚑${index}` : String(index), x + CELL / 2 - 1, HEAD / 2 + 1);
  context.textAlign = "left";
  context.font = "11px system-ui, 'DejaVu Sans', sans-serif";
}

function drawLogName(context, node, state, y) {
  if (concerned.nodes.has(node)) {
    context.fillStyle = theme.bad;
    context.fillRect(0, y + 1, 4, ROW - 4);
  }
  context.font = `${events[cursor].n === node ? "bold " : ""}12px system-ui, 'DejaVu Sans', sans-serif`;
  context.fillStyle = theme.ink;
  context.fillText(`n${node}`, 8, y + ROW / 2 - 1);
  context.font = "11px system-ui, 'DejaVu Sans', sans-serif";
  context.fillStyle = theme.dim;
  const part = state.u === "D" ? "down" : state.u === "X" ? "failed" : state.u === "P" ? "stopped" : `${state.r} T${state.t}`;
  context.fillText(`${part} · ${state.n}`, 32, y + ROW / 2 - 1);
}

function drawCell(context, state, index, x, y, differs) {
  const width = CELL - 2, height = ROW - 5;
  if (index <= state.b[0]) {
    // In the snapshot: gone from the log.
    context.fillStyle = theme.lane;
    context.fillRect(x, y, CELL, height);
    hatch(context, x, y, x + CELL, y + height, 6, theme.line);
    return;
  }
  const term = termAt(state, index);
  if (!term) return;
  // A process that is gone knows nothing; what its disk has is what counts.
  const down = state.u === "D", committed = index <= state.c && !down, applied = index <= state.a && !down;
  const durable = index <= (down ? state.k[2] : Math.min(state.d, state.n));
  const member = state.m.some(([at]) => at === index);
  context.globalAlpha = down ? 0.55 : 1;
  context.fillStyle = cellColour(term, committed);
  context.fillRect(x, y, width, height);
  context.setLineDash(durable ? [] : [3, 2]);
  context.lineWidth = differs ? 2 : 1;
  context.strokeStyle = differs ? theme.bad : durable ? theme.dim : theme.ink;
  context.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
  context.setLineDash([]);
  context.fillStyle = theme.ink;
  if (committed) context.fillRect(x, y + height - 3, width, 3);
  if (applied) context.fillRect(x, y + height - 6, width, 1.5);
  // What stands beside the number needs a little of its room.
  context.textAlign = "center";
  context.fillText(String(term), x + width / 2 + (differs ? 4 : 0) - (member && term < 100 ? 4 : 0), y + height / 2 - 2);
  context.textAlign = "left";
  if (member) context.fillText("◆", x + width - 9, y + 6);
  if (differs) {
    context.fillStyle = theme.bad;
    context.font = "bold 10px system-ui, 'DejaVu Sans', sans-serif";
    context.fillText("≠", x + 1, y + height / 2 - 3);
    context.font = "11px system-ui, 'DejaVu Sans', sans-serif";
  }
  context.globalAlpha = 1;
}

/** What has gone from a log is said once, where it ends; and that a log ends before what is shown. */
function drawSnapshot(context, state, first, columns, y) {
  if (state.n < first) {
    context.fillStyle = theme.dim;
    context.fillText(state.n ? `◂ ends at ${state.n}@T${termAt(state, state.n)}` : "empty", LABEL, y + ROW / 2 - 2);
    return;
  }
  const shown = Math.min(state.b[0] - first + 1, columns);
  if (shown < 1) return;
  const text = shown > 5 ? `in a snapshot up to ${state.b[0]}@T${state.b[1]}` : shown > 2 ? `≤ ${state.b[0]}` : "…";
  const width = context.measureText(text).width, right = LABEL + shown * CELL - 4;
  context.fillStyle = theme.lane;
  context.fillRect(right - width - 3, y + 3, width + 5, ROW - 11);
  context.fillStyle = theme.dim;
  context.fillText(text, right - width, y + ROW / 2 - 2);
}

/** What a cell says when it is pointed at. */
function cellWords(x, y) {
  const row = logShape.rows[Math.floor((y - HEAD) / ROW)], index = logShape.first + Math.floor((x - LABEL) / CELL);
  if (!row || x < LABEL || y < HEAD) return "";
  const { node, state } = row;
  if (index <= state.b[0]) return `n${node}: ${index} is in the snapshot at ${state.s}; the log begins after ${state.b[0]}@T${state.b[1]}`;
  const term = termAt(state, index);
  if (!term) return "";
  const words = [`n${node}: ${index}@T${term}`];
  words.push(index <= state.d && state.u !== "D" || index <= state.k[2] && state.u === "D" ? "durable" : "not durable");
  if (state.u !== "D") words.push(index <= state.a ? "committed, applied" : index <= state.c ? "committed" : "not known to be committed");
  const membership = state.m.find(([at]) => at === index);
  if (membership) words.push(`membership: ${membership[1]}`);
  const others = logShape.rows.filter(other => ![0, term].includes(termAt(other.state, index)));
  if (others.length) words.push(`≠ ${others.map(other => `n${other.node} has T${termAt(other.state, index)}`).join(", ")}`);
  return words.join(" · ");
}
