// The space-time diagram, and the strip above it that shows the whole run. Only what is in sight is drawn.

const AXIS = 22;
const FAULTS = 18;

/** Where everything is, for the size that the diagram has now. */
function layout(width, height) {
  const top = AXIS + FAULTS, lane = Math.max(26, (height - top - 4) / Math.max(nodes, 1));
  return { width, height, top, lane, band: Math.min(22, lane * 0.5), scale: (width - GUTTER) / (view.t1 - view.t0) };
}
let place = layout(800, 400);
const xOf = t => GUTTER + (t - view.t0) * place.scale;
const tOf = x => view.t0 + (x - GUTTER) / place.scale;
const yOf = node => place.top + (node - 0.5) * place.lane;

function drawDiagram() {
  const { context, width, height } = prepare($("diagram"));
  place = layout(width, height);
  context.fillStyle = theme.bg;
  context.fillRect(0, 0, width, height);
  drawAxis(context);
  context.save();
  context.beginPath();
  context.rect(GUTTER, 0, width - GUTTER, height);
  context.clip();
  for (let node = 1; node <= nodes; node++) drawBand(context, node);
  drawFaults(context);
  drawArrows(context);
  drawMarks(context);
  drawMatches(context);
  if (violation) drawViolation(context);
  drawCursor(context);
  context.restore();
  drawNames(context);
}

function drawAxis(context) {
  const span = view.t1 - view.t0, rough = span / ((place.width - GUTTER) / 110);
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(n => n * unit).find(step => step >= rough);
  context.fillStyle = theme.dim;
  context.strokeStyle = theme.line;
  context.lineWidth = 1;
  context.beginPath();
  for (let t = Math.ceil(view.t0 / step) * step; t <= view.t1; t += step) {
    const x = Math.round(xOf(t)) + 0.5;
    if (x < GUTTER) continue;
    context.moveTo(x, AXIS - 6);
    context.lineTo(x, place.height);
    context.fillText(moment(t, span), x + 3, 9);
  }
  context.stroke();
}

/** The parts that a node plays, its lease, and when no process runs. */
function drawBand(context, node) {
  const y = yOf(node), half = place.band / 2, { list, starts } = bands[node - 1];
  context.fillStyle = theme.lane;
  context.fillRect(GUTTER, y - half, place.width - GUTTER, 2 * half);
  if (concerned.nodes.has(node)) {
    context.globalAlpha = 0.08;
    context.fillStyle = theme.bad;
    context.fillRect(GUTTER, y - place.lane / 2, place.width - GUTTER, place.lane);
    context.globalAlpha = 1;
  }
  let drawn = -1;
  for (let i = Math.max(0, above(starts, view.t0) - 1); i < list.length && list[i].t0 <= view.t1; i++) {
    const band = list[i], x0 = Math.max(xOf(band.t0), GUTTER - 2), x1 = Math.min(xOf(band.t1), place.width + 2);
    // Many parts in one pixel are one pixel; the last of them.
    if (x1 - x0 < 0.5 && Math.floor(x1) === drawn) continue;
    drawn = Math.floor(x1);
    if (band.life === "-") continue;
    if (band.life === "D" || band.life === "X") {
      context.fillStyle = theme.bg;
      context.fillRect(x0, y - half, x1 - x0, 2 * half);
      hatch(context, x0, y - half, x1, y + half, 7, theme.dim);
      label(context, band.life === "X" ? "store failed" : "down", x0, x1, y, theme.dim, true);
      continue;
    }
    context.fillStyle = bandColour(band.role, band.term);
    context.fillRect(x0, y - half, Math.max(x1 - x0, 1), 2 * half);
    if (band.role === "C" || band.role === "P") {
      context.strokeStyle = theme.ink;
      context.setLineDash(band.role === "P" ? [3, 3] : []);
      if (x1 - x0 > 3) context.strokeRect(x0 + 0.5, y - half + 0.5, x1 - x0 - 1, 2 * half - 1);
      context.setLineDash([]);
    }
    if (band.life === "P") hatch(context, x0, y - half, x1, y + half, 4, theme.dim);
    label(context, `${band.role} T${band.term}${band.life === "P" ? " stopped" : ""}`, x0, x1, y - half * 0.3, bandInk(band.role, band.term), band.life === "P");
  }
  const { list: leased, starts: begun } = leases[node - 1];
  context.fillStyle = theme.lease;
  for (let i = Math.max(0, above(begun, view.t0) - 1); i < leased.length && leased[i][0] <= view.t1; i++) {
    const x0 = xOf(leased[i][0]), x1 = xOf(leased[i][1]);
    if (x1 > GUTTER) context.fillRect(x0, y - half - 3, Math.max(x1 - x0, 1), 3);
  }
}

/** Words in a band, at the left end of what is in sight of it, if there is room for them. */
function label(context, text, x0, x1, y, colour, plate) {
  const left = Math.max(x0, GUTTER) + 4, room = x1 - left - 2;
  if (room < 9) return;
  const width = context.measureText(text).width;
  const short = width <= room ? text : text[0];
  if (plate) {
    context.fillStyle = theme.bg;
    context.fillRect(left - 2, y - 7, context.measureText(short).width + 4, 14);
    colour = theme.ink;
  }
  context.fillStyle = colour;
  context.fillText(short, left, y + 0.5);
}

const faultList = ofNode.flat().filter(i => events[i].k === "fault" && !events[i].c).sort((one, other) => one - other);

/** Faults in a strip of their own: what strikes several nodes belongs to no lane. */
function drawFaults(context) {
  const y = AXIS + FAULTS / 2;
  let lower = from(faultList, from(times, view.t0)), right = -1;
  for (; lower < faultList.length && times[faultList[lower]] <= view.t1; lower++) {
    const event = events[faultList[lower]], x = xOf(event.t);
    if (x - right < 3) continue;
    context.fillStyle = theme.bad;
    context.fillText("⚡", x - 5, y);
    right = x;
    const next = faultList[lower + 1], room = (next === undefined ? place.width : xOf(times[next])) - x - 14;
    if (room > 30) {
      let text = event.l;
      while (text.length > 3 && context.measureText(text).width > room) text = `${text.slice(0, Math.floor(text.length * 0.85) - 1)}…`;
      context.fillText(text, x + 8, y);
    }
    context.strokeStyle = theme.bad;
    context.setLineDash([2, 4]);
    context.lineWidth = 1;
    context.beginPath();
    for (const node of event.w || []) {
      context.moveTo(x, yOf(node) - place.lane / 2);
      context.lineTo(x, yOf(node) + place.lane / 2);
    }
    context.stroke();
    context.setLineDash([]);
  }
}

/** Calls `each` with what is in sight and shown. */
function visibleArrows(each) {
  const end = above(arrowStarts, view.t1);
  for (let i = from(arrowEnds, view.t0); i < end; i++) {
    const arrow = arrows[i];
    if (arrow.t1 >= view.t0 && shown[arrow.letter.group]) each(arrow);
  }
}

/** An arrow's ends, from the edge of one band to the edge of the other. A lost copy gets half the way. */
function ends(arrow) {
  const down = arrow.letter.o > arrow.letter.f ? 1 : -1, half = place.band / 2;
  const x0 = xOf(arrow.t0), y0 = yOf(arrow.letter.f) + down * half, y1 = yOf(arrow.letter.o) - down * half;
  if (arrow.end >= 0) return [x0, y0, xOf(arrow.t1), y1];
  if (arrow.lost && arrow.t1 > arrow.t0) return [x0, y0, xOf(arrow.t1), y0 + (y1 - y0) * 0.85];
  const along = Math.min(26, Math.abs(y1 - y0) * 0.5);
  return [x0, y0, x0 + along * 0.5, y0 + down * along];
}

function drawArrows(context) {
  const batches = new Map(GROUPS.map(group => [group.name, { solid: [], replies: [], lost: [] }]));
  let total = 0;
  visibleArrows(arrow => {
    const batch = batches.get(arrow.letter.group);
    const reply = /Reply$|^Appended$|^Conflict$/.test(arrow.letter.k);
    (arrow.end < 0 ? batch.lost : reply ? batch.replies : batch.solid).push(arrow);
    total++;
  });
  const heads = total < 1500;
  for (const [group, batch] of batches) {
    context.strokeStyle = context.fillStyle = theme[group];
    context.globalAlpha = total < 300 ? 0.95 : total < 1500 ? 0.7 : total < 5000 ? 0.4 : 0.22;
    context.lineWidth = total < 300 ? 1.4 : 1;
    strokeAll(context, batch.solid, []);
    strokeAll(context, batch.replies, heads ? [5, 3] : []);
    strokeAll(context, batch.lost, heads ? [2, 3] : []);
    if (!heads) continue;
    context.beginPath();
    for (const arrow of batch.solid) head(context, ends(arrow));
    for (const arrow of batch.replies) head(context, ends(arrow));
    context.fill();
    context.globalAlpha = 1;
    context.lineWidth = 1.5;
    for (const arrow of batch.lost) lostEnd(context, arrow);
  }
  context.globalAlpha = 1;
  if (total < 60) nameArrows(context, batches);
  // Those of the event at the cursor, and the one under the pointer, stand out.
  // Hidden or not.
  const came = letters.get(events[cursor]?.m);
  for (const arrow of (came && came.arrows) || []) if (arrow.end === cursor) emphasise(context, arrow);
  for (const letter of sends.get(cursor) || []) (letter.arrows || []).forEach(arrow => emphasise(context, arrow));
  if (hovered) emphasise(context, hovered);
}

function strokeAll(context, list, dash) {
  if (!list.length) return;
  context.setLineDash(dash);
  context.beginPath();
  for (const arrow of list) {
    const [x0, y0, x1, y1] = ends(arrow);
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
  }
  context.stroke();
  context.setLineDash([]);
}

function head(context, [x0, y0, x1, y1]) {
  const length = Math.hypot(x1 - x0, y1 - y0) || 1, dx = ((x1 - x0) / length) * 7, dy = ((y1 - y0) / length) * 7;
  context.moveTo(x1, y1);
  context.lineTo(x1 - dx - dy * 0.45, y1 - dy + dx * 0.45);
  context.lineTo(x1 - dx + dy * 0.45, y1 - dy - dx * 0.45);
  context.closePath();
}

function lostEnd(context, arrow) {
  const [, , x, y] = ends(arrow);
  context.beginPath();
  if (arrow.lost) {
    context.strokeStyle = theme.bad;
    context.moveTo(x - 4, y - 4);
    context.lineTo(x + 4, y + 4);
    context.moveTo(x - 4, y + 4);
    context.lineTo(x + 4, y - 4);
    context.stroke();
  } else {
    context.arc(x, y, 2.5, 0, 7);
    context.fill();
  }
}

/** Few arrows have room for their names. */
function nameArrows(context, batches) {
  context.font = "10px system-ui, 'DejaVu Sans', sans-serif";
  const taken = [];
  for (const [group, batch] of batches) {
    context.fillStyle = theme[group];
    for (const arrow of [...batch.solid, ...batch.replies, ...batch.lost]) {
      const [x0, y0, x1, y1] = ends(arrow);
      // Nearer to the sender: arrows fan out from there.
      const x = x0 + (x1 - x0) * 0.4 + 5, y = y0 + (y1 - y0) * 0.4, width = context.measureText(arrow.letter.k).width;
      if (taken.some(box => Math.abs(box.y - y) < 12 && x < box.x + box.width + 4 && box.x < x + width + 4)) continue;
      taken.push({ x, y, width });
      context.globalAlpha = 0.85;
      context.fillStyle = theme.bg;
      context.fillRect(x - 2, y - 6, width + 4, 12);
      context.globalAlpha = 1;
      context.fillStyle = theme[group];
      context.fillText(arrow.letter.k, x, y);
    }
  }
  context.font = "11px system-ui, 'DejaVu Sans', sans-serif";
}

function emphasise(context, arrow) {
  const line = ends(arrow);
  context.strokeStyle = context.fillStyle = theme[arrow.letter.group];
  context.lineWidth = 3;
  context.beginPath();
  context.moveTo(line[0], line[1]);
  context.lineTo(line[2], line[3]);
  context.stroke();
  context.beginPath();
  if (arrow.end >= 0) head(context, [line[0], line[1], line[2], line[3]]);
  context.fill();
  if (arrow.end < 0) lostEnd(context, arrow);
}

/** Steps, writes, requests, crashes: a mark each, but one for each pixel at most. */
function drawMarks(context) {
  const lower = from(times, view.t0), upper = above(times, view.t1);
  const last = { step: [], durable: [], request: [], crash: [] }, half = place.band / 2;
  const crowded = upper - lower > 3000;
  for (let i = lower; i < upper; i++) {
    const event = events[i];
    if (!event.n) continue;
    const kind = event.k === "crash" || event.k === "start" ? "crash" : event.k === "durable" || event.k === "request" ? event.k : "step";
    if (crowded && kind === "step") continue;
    const x = xOf(event.t), y = yOf(event.n), gap = kind === "crash" ? 0.5 : kind === "step" ? 2 : 1;
    if (x - (last[kind][event.n] ?? -9) < gap || (kind === "step" && !isShown(i))) continue;
    last[kind][event.n] = x;
    if (kind === "durable") {
      context.fillStyle = theme.dim;
      context.fillRect(x - 0.75, y + half + 1, 1.5, 4);
    } else if (kind === "request") {
      context.fillStyle = theme.accent;
      if (crowded) context.fillRect(x - 0.5, y + half - 3, 1, 3); else context.fillRect(x - 2, y + half - 6, 4, 4);
    } else if (kind === "crash") {
      context.fillStyle = event.k === "crash" ? theme.bad : theme.commit;
      context.font = "bold 14px system-ui, 'DejaVu Sans', sans-serif";
      context.fillText(event.k === "crash" ? "✕" : "▴", x - 5, y + (event.k === "crash" ? 0 : half + 4));
      context.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    } else {
      context.fillStyle = theme.ink;
      context.beginPath();
      context.arc(x, y + half - 4, 1.6, 0, 7);
      context.fill();
    }
  }
}

function drawMatches(context) {
  context.fillStyle = theme.match;
  let right = -9;
  for (let at = from(matches, from(times, view.t0)); at < matches.length && times[matches[at]] <= view.t1; at++) {
    const x = xOf(times[matches[at]]);
    if (x - right < 1) continue;
    right = x;
    context.fillRect(x - 1, AXIS - 6, 2, 6);
    const node = events[matches[at]].n;
    if (node) context.fillRect(x - 1, yOf(node) - place.band / 2 - 7, 2, 5);
  }
}

function drawViolation(context) {
  const x = xOf(violation.at);
  context.strokeStyle = theme.bad;
  context.lineWidth = 2;
  context.setLineDash([6, 4]);
  context.beginPath();
  context.moveTo(x, 0);
  context.lineTo(x, place.height);
  context.stroke();
  context.setLineDash([]);
  context.fillStyle = theme.bad;
  const text = `⚑ ${violation.invariant}`, width = context.measureText(text).width + 8;
  const left = x + width + 2 > place.width ? x - width : x;
  context.fillRect(left, AXIS - 6, width, 16);
  context.fillStyle = theme.bg;
  context.fillText(text, left + 4, AXIS + 2);
}

function drawCursor(context) {
  if (!count) return;
  const event = events[cursor], x = xOf(event.t);
  context.strokeStyle = theme.cursor;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(x, 0);
  context.lineTo(x, place.height);
  context.stroke();
  if (event.n) {
    context.lineWidth = 2;
    context.beginPath();
    context.arc(x, yOf(event.n), place.band / 2 + 3, 0, 7);
    context.stroke();
  }
}

/** The lanes' names, with what each node is at the cursor. */
function drawNames(context) {
  context.fillStyle = theme.bg;
  context.fillRect(0, AXIS, GUTTER - 1, place.height);
  context.fillStyle = theme.dim;
  context.fillText("faults", 8, AXIS + FAULTS / 2);
  for (let node = 1; node <= nodes; node++) {
    const y = yOf(node), state = count ? stateAt(node, cursor) : data.before[node - 1];
    if (concerned.nodes.has(node)) {
      context.fillStyle = theme.bad;
      context.fillRect(0, y - place.band / 2 - 4, 4, place.band + 8);
    }
    context.fillStyle = theme.ink;
    context.font = `${events[cursor]?.n === node ? "bold " : ""}13px system-ui, 'DejaVu Sans', sans-serif`;
    context.fillText(`n${node}`, 8, y);
    context.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    context.fillStyle = theme.dim;
    context.fillText(state.u === "-" ? "" : state.u === "D" ? "down" : `${state.r} T${state.t}`, node > 9 ? 36 : 30, y);
  }
}

/** The whole run in a strip: who led, what struck, what was found, and what the diagram shows of it. */
function drawOverview() {
  const { context, width, height } = prepare($("overview"));
  const scale = (width - GUTTER) / (lastTime - firstTime), at = t => GUTTER + (t - firstTime) * scale;
  const row = (height - 12) / Math.max(nodes, 1);
  context.fillStyle = theme.lane;
  context.fillRect(GUTTER, 4, width - GUTTER, height - 8);
  bands.forEach(({ list }, i) => {
    for (const band of list) {
      if (band.life === "-" || (band.role === "F" && band.life === "U")) continue;
      context.fillStyle = band.life === "U" ? bandColour(band.role, band.term) : theme.dim;
      context.fillRect(at(band.t0), 6 + i * row, Math.max((band.t1 - band.t0) * scale, 0.7), Math.max(row - 1, 1));
    }
  });
  const marks = (list, colour, y, tall) => {
    context.fillStyle = colour;
    let right = -9;
    for (const i of list) {
      const x = at(times[i]);
      if (x - right < 1) continue;
      right = x;
      context.fillRect(x - 0.5, y, 1.5, tall);
    }
  };
  marks(faultList, theme.bad, 0, 4);
  marks(matches, theme.match, height - 5, 5);
  context.fillStyle = theme.dim;
  context.fillText("all", 8, height / 2);
  if (violation) {
    context.fillStyle = theme.bad;
    context.fillRect(at(violation.at) - 1, 0, 2.5, height);
  }
  context.fillStyle = theme.cursor;
  context.fillRect(at(cursorTime()) - 0.5, 0, 1, height);
  context.strokeStyle = theme.accent;
  context.lineWidth = 2;
  const x0 = Math.max(at(view.t0), GUTTER), x1 = Math.min(at(view.t1), width);
  context.strokeRect(Math.min(x0, width - 4), 2, Math.max(x1 - x0, 3), height - 4);
}

/** What is under the pointer: an arrow, or the nearest event of a lane. */
function hit(x, y) {
  if (x < GUTTER) return null;
  let best = null, nearest = 5;
  visibleArrows(arrow => {
    const [x0, y0, x1, y1] = ends(arrow);
    if (x < Math.min(x0, x1) - 5 || x > Math.max(x0, x1) + 5 || y < Math.min(y0, y1) - 3 || y > Math.max(y0, y1) + 3) return;
    const dx = x1 - x0, dy = y1 - y0, along = Math.max(0, Math.min(1, ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy || 1)));
    const away = Math.hypot(x - x0 - along * dx, y - y0 - along * dy);
    if (away < nearest) { nearest = away; best = { arrow, late: along > 0.5 }; }
  });
  if (y < place.top) {
    const i = faultList.find(i => Math.abs(xOf(times[i]) - x) < 7);
    return i === undefined ? best : { event: i };
  }
  const node = Math.ceil((y - place.top) / place.lane);
  if (node < 1 || node > nodes || Math.abs(y - yOf(node)) > place.band / 2 + 5) return best;
  const list = ofNode[node], t = tOf(x);
  let closest = null, gap = 7 / place.scale;
  const start = from(list, from(times, t - gap));
  for (let at = start; at < list.length && times[list[at]] <= t + gap; at++) {
    if (!isShown(list[at])) continue;
    const away = Math.abs(times[list[at]] - t);
    if (away <= gap) { gap = away; closest = { event: list[at] }; }
  }
  return closest || best;
}
