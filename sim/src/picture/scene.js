// What is looked at: the part of time that is shown, the cursor, the colours; and when to draw.

const $ = id => document.getElementById(id);
const GUTTER = 68;

const view = { t0: firstTime, t1: lastTime };
/** The event at the cursor. */
let cursor = violation ? violationAt : 0;
let matches = [];
let hovered = null;

/** The shortest stretch of time that is shown. */
const CLOSEST = 200;

function clampView() {
  const width = Math.min(Math.max(view.t1 - view.t0, CLOSEST), (lastTime - firstTime) * 1.05 + 100);
  // A little room at both ends: for what is written there.
  const margin = width * 0.1;
  const middle = (view.t0 + view.t1) / 2;
  view.t0 = Math.max(Math.min(middle - width / 2, lastTime + margin - width), firstTime - margin);
  if (width > lastTime - firstTime) view.t0 = firstTime - width * 0.02;
  view.t1 = view.t0 + width;
  // At once, not with the next drawing: several turns of a wheel may come between two.
  place.scale = (place.width - GUTTER) / width;
}

function setView(t0, t1) {
  view.t0 = t0;
  view.t1 = t1;
  clampView();
  redraw();
}

function zoom(factor, around) {
  const at = around ?? (cursorTime() >= view.t0 && cursorTime() <= view.t1 ? cursorTime() : (view.t0 + view.t1) / 2);
  setView(at - (at - view.t0) * factor, at + (view.t1 - at) * factor);
}

const fit = () => setView(firstTime - (lastTime - firstTime), lastTime + (lastTime - firstTime));
const cursorTime = () => (count ? times[cursor] : 0);

/** Shows the cursor, if it is out of sight. */
function follow() {
  const t = cursorTime(), width = view.t1 - view.t0;
  if (t < view.t0 + width * 0.05 || t > view.t1 - width * 0.05) {
    view.t0 = t - width / 2;
    view.t1 = t + width / 2;
    clampView();
  }
}

/** A width at which single messages can be told apart around the cursor: so many events that are shown. */
function closeUp(enough = 50) {
  let lower = cursor, upper = cursor, seen = 0;
  while (seen < enough && (lower > 0 || upper < count - 1)) {
    if (lower > 0) { lower--; if (isShown(lower)) seen++; }
    if (upper < count - 1) { upper++; if (isShown(upper)) seen++; }
  }
  const t = cursorTime(), width = Math.max(t - times[lower], times[upper] - t, CLOSEST);
  setView(t - width, t + width);
}

// ---- colours.

let theme = {};
function readTheme() {
  const style = getComputedStyle(document.documentElement);
  theme = { dark: matchMedia("(prefers-color-scheme: dark)").matches };
  for (const name of ["bg", "panel", "ink", "dim", "line", "lane", "accent", "bad", "lease", "cursor", "match", ...GROUPS.map(group => group.name)]) {
    theme[name] = style.getPropertyValue(`--${name}`).trim();
  }
}

/** A term's hue: neighbours are far apart. */
const hue = term => (term * 137.508 + 200) % 360;

/** A band's colour: leaders are the strongest, followers the faintest. */
function bandColour(role, term) {
  const strength = { L: theme.dark ? [62, 46] : [58, 52], C: theme.dark ? [48, 38] : [62, 70], P: theme.dark ? [34, 32] : [55, 79], F: theme.dark ? [26, 25] : [48, 88] }[role];
  return `hsl(${hue(term)} ${strength[0]}% ${strength[1]}%)`;
}
/** Black or white, whichever is read better on a leader's band. */
function bandInk(role, term) {
  if (role !== "L") return theme.ink;
  const [saturation, lightness] = theme.dark ? [0.62, 0.46] : [0.58, 0.52];
  const channel = n => {
    const k = (n + hue(term) / 30) % 12, a = saturation * Math.min(lightness, 1 - lightness);
    return (lightness - a * Math.max(-1, Math.min(k - 3, 9 - k, 1))) ** 2.2;
  };
  return 0.2126 * channel(0) + 0.7152 * channel(8) + 0.0722 * channel(4) > 0.24 ? "#101418" : "#fff";
}
const cellColour = (term, committed) => `hsl(${hue(term)} ${theme.dark ? 40 : 60}% ${theme.dark ? (committed ? 38 : 24) : committed ? 76 : 91}%)`;

const ROLES = { F: "follower", P: "pre-candidate", C: "candidate", L: "leader" };

// ---- canvases.

/** Makes a canvas as fine as the screen, and gives its context in CSS pixels. */
function prepare(canvas) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "11px system-ui, 'DejaVu Sans', sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "left";
  return { context, width, height };
}

function hatch(context, x0, y0, x1, y1, step, colour) {
  context.save();
  context.beginPath();
  context.rect(x0, y0, x1 - x0, y1 - y0);
  context.clip();
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.beginPath();
  for (let x = x0 - (y1 - y0) - (x0 % step); x < x1; x += step) {
    context.moveTo(x, y1);
    context.lineTo(x + (y1 - y0), y0);
  }
  context.stroke();
  context.restore();
}

let asked = false;
/** How long the last drawings took, in ms. */
const took = [];
function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    drawAll();
  });
}

function drawAll() {
  const start = performance.now();
  drawDiagram();
  drawOverview();
  drawLogs();
  took.push(performance.now() - start);
  if (took.length > 200) took.shift();
}

// ---- words for numbers.

/** A moment, as precisely as the view needs it. */
function moment(t, span = 1000) {
  const digits = span > 2e7 ? 1 : span > 2e6 ? 2 : span > 2e5 ? 3 : span > 2e4 ? 4 : span > 2e3 ? 5 : 6;
  return `${(t / 1e6).toFixed(digits)} s`;
}

function duration(us) {
  if (us < 1000) return `${us} µs`;
  return us < 1e6 ? `${(us / 1000).toFixed(us < 1e4 ? 2 : 1)} ms` : `${(us / 1e6).toFixed(2)} s`;
}
