// The heat map: the cosine of every two labels that are shown.

import { choose } from "./about.js";
import { dragging, fontOf, layered, pictureKeys, tip } from "./canvas.js";
import { cosine, cosineOf, level, levelsOf } from "./cosines.js";
import { byId, data, datasetName, labels } from "./data.js";
import { kept, state, when } from "./state.js";
import { dark, inks } from "./theme.js";

const STRIP = 10; // pixels of the datasets' colours along two sides
const MARGIN = 190; // pixels for names
const BLOCK_MARGIN = 150; // likewise, of blocks
const ROOMY = 500; // pixels: a narrower picture has no room for them
const SMALLEST = 10; // pixels: a smaller block has no name
const PAUSE = 30; // ms before it is painted anew
const READABLE = 11; // pixels that a row with a name needs
const canvas = byId("heat-canvas");
const layers = layered(canvas);
const picture = document.createElement("canvas"); // one pixel for each cell
const view = { k: 1, x: 0, y: 0 };
const colours = new Uint32Array(256); // of the levels
let shown = []; // rows of labels, in the matrix's order
let blocks = []; // of labels that stand together by meaning: [from, to, name]
let cell = null; // that is read out: its row and column
let near = false; // whether the heat map is on the screen, or nearly
let waiting = 0;
let old = true; // whether the picture shows what it should

const place = [];
data.order.forEach((row, number) => {
  place[row] = number;
});
const orders = {
  meaning: (a, b) => place[a] - place[b],
  dataset: (a, b) => labels[a].dataset - labels[b].dataset || place[a] - place[b],
  name: (a, b) => labels[a].name.localeCompare(labels[b].name) || a - b,
};

const named = () => shown.length > 0 && ((canvas.clientWidth - MARGIN) * view.k) / shown.length >= READABLE;
const begin = () => (named() ? MARGIN : blocks.length && canvas.clientWidth >= ROOMY ? BLOCK_MARGIN : STRIP + 4);
const side = () => Math.max(1, canvas.clientWidth - begin() - 2);
const pixel = () => (side() * view.k) / Math.max(shown.length, 1); // a cell's side
const first = axis => Math.max(0, Math.floor(-view[axis] / pixel()));
const last = axis => Math.min(shown.length, Math.ceil((side() - view[axis]) / pixel()));

// ── what is in it ────────────────────────────────────────────────────────────────────────────────────────────────────

function fill() {
  shown = labels
    .map(({ row }) => row)
    .filter(kept)
    .sort(orders[byId("heat-order").value]);
  blocks = byId("heat-order").value === "meaning" ? data.blocks.map(shownOf).filter(([from, to]) => to > from + 1) : [];
  cell = null;
  Object.assign(view, { k: 1, x: 0, y: 0 });
  repaint();
}

// Where what is shown of a block begins and ends.
function shownOf([from, to, name]) {
  const [start, end] = [from, to].map(limit => shown.reduce((sum, row) => sum + (place[row] < limit), 0));
  return [start, end, name];
}

// The picture has a pixel for each of millions of pairs: it is painted when it is in sight, and after all else.
function repaint() {
  old = true;
  clearTimeout(waiting);
  if (near) waiting = setTimeout(paint, PAUSE);
}

function paint() {
  old = false;
  const count = shown.length;
  const columns = Uint32Array.from(shown, row => labels[row].column);
  picture.width = picture.height = Math.max(count, 1);
  const context = picture.getContext("2d");
  const image = context.createImageData(picture.width, picture.height);
  const cells = new Uint32Array(image.data.buffer);
  const rowOf = new Map(); // column → its row of cells: labels of one text have the same
  for (let i = 0; i < count; i++) {
    if (!rowOf.has(columns[i])) {
      const levels = levelsOf(columns[i]);
      for (let j = 0, next = i * count; j < count; j++) cells[next++] = colours[levels[columns[j]]];
      rowOf.set(columns[i], i * count);
    } else cells.copyWithin(i * count, rowOf.get(columns[i]), rowOf.get(columns[i]) + count);
  }
  context.putImageData(image, 0, 0);
  draw();
}

// Similar stands out: dark on light paper, light on dark.
function recolour() {
  const ramp = data.ramps[dark() ? "dark" : "light"];
  const steps = ramp.length - 1;
  const bytes = new Uint8Array(colours.buffer);
  for (let value = 0; value < 256; value++) {
    const where = (Math.max(0, value - data.pale) / (255 - data.pale)) * steps;
    const low = Math.min(Math.floor(where), steps - 1);
    for (let c = 0; c < 3; c++) {
      bytes[4 * value + c] = ramp[low][c] + (where - low) * (ramp[low + 1][c] - ramp[low][c]);
    }
    bytes[4 * value + 3] = 255;
  }
  paintRamp();
  repaint();
}

function paintRamp() {
  const { width, height } = byId("ramp");
  const context = byId("ramp").getContext("2d");
  const image = context.createImageData(width, height);
  const cells = new Uint32Array(image.data.buffer);
  for (let i = 0; i < cells.length; i++) {
    cells[i] = colours[Math.round(data.pale + ((i % width) / (width - 1)) * (255 - data.pale))];
  }
  context.putImageData(image, 0, 0);
  byId("ramp-low").textContent = `≤ ${cosineOf(data.pale).toFixed(2)}`;
}

// ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────────

export function draw(stale = true) {
  if (old) return;
  const [context] = layers(stale, paintBelow);
  const start = begin();
  const size = pixel();
  const chosen = shown.indexOf(state.chosen);
  const edge = start - STRIP - 4;
  context.save();
  context.beginPath();
  context.rect(edge, edge, side() + STRIP + 4, side() + STRIP + 4);
  context.clip();
  context.strokeStyle = context.fillStyle = inks.chosen;
  context.lineWidth = 1.5;
  if (cell) {
    context.strokeRect(start + view.x + cell[1] * size, start, Math.max(size, 2), side());
    context.strokeRect(start, start + view.y + cell[0] * size, side(), Math.max(size, 2));
  }
  if (chosen >= 0) {
    const [x, y] = ["x", "y"].map(axis => start + view[axis] + (chosen + 0.5) * size);
    if (x >= start) context.fillRect(x - 1.5, edge, 3, STRIP + 4);
    if (y >= start) context.fillRect(edge, y - 1.5, STRIP + 4, 3);
  }
  context.restore();
}

function paintBelow(context) {
  const start = begin();
  const size = pixel();
  if (!shown.length) {
    context.fillStyle = inks.soft;
    context.font = fontOf(14);
    context.fillText("No labels are left to compare.", 20, 30);
    return;
  }
  context.save();
  context.beginPath();
  context.rect(start, start, side(), side());
  context.clip();
  context.imageSmoothingEnabled = size < 1;
  // Only what is seen: a browser leaves out a picture that would be a hundred thousand pixels wide.
  const [left, top] = [first("x"), first("y")];
  const [wide, high] = [last("x") - left, last("y") - top];
  const [x, y] = [start + view.x + left * size, start + view.y + top * size];
  if (wide > 0 && high > 0) context.drawImage(picture, left, top, wide, high, x, y, wide * size, high * size);
  if (size >= 34) writeCosines(context, start, size);
  context.strokeStyle = inks.soft;
  context.lineWidth = 1;
  for (const [from, to] of blocks) {
    context.strokeRect(start + view.x + from * size, start + view.y + from * size, (to - from) * size, (to - from) * size);
  }
  context.restore();
  for (const axis of ["y", "x"]) {
    paintStrip(context, axis, start, size);
    if (named()) writeNames(context, axis, start, size);
    else if (start === BLOCK_MARGIN) writeBlocks(context, axis, start, size);
  }
}

function paintStrip(context, axis, start, size) {
  context.save();
  if (axis === "x") context.transform(0, 1, 1, 0, 0, 0); // the top margin is the left one, mirrored
  for (let i = first(axis); i < last(axis); i++) {
    const from = Math.max(start, start + view[axis] + i * size);
    const to = Math.min(start + side(), start + view[axis] + (i + 1) * size);
    context.fillStyle = data.datasets[labels[shown[i]].dataset].colour;
    context.fillRect(start - STRIP - 2, from, STRIP, Math.max(to - from, 0.5));
  }
  context.restore();
}

function writeCosines(context, start, size) {
  context.font = fontOf(12);
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let i = first("y"); i < last("y"); i++) {
    for (let j = first("x"); j < last("x"); j++) {
      const value = level(labels[shown[i]].column, labels[shown[j]].column);
      const intense = value > (255 + data.pale) / 2;
      const [x, y] = [start + view.x + (j + 0.5) * size, start + view.y + (i + 0.5) * size];
      context.fillStyle = intense !== dark() ? "#fff" : "#111";
      context.fillText(cosineOf(value).toFixed(2), x, y);
    }
  }
  context.textAlign = "start";
}

// A name left of the matrix, or, for the other axis, above it.
function writeName(context, axis, middle, name, room) {
  let words = name;
  while (words.length > 2 && context.measureText(words).width > room) words = `${words.slice(0, -2)}…`;
  context.save();
  if (axis === "x") {
    context.translate(middle, room + 2);
    context.rotate(-Math.PI / 2);
  } else context.translate(room + 2 - context.measureText(words).width, middle);
  context.fillText(words, 0, 0);
  context.restore();
}

function writeNames(context, axis, start, size) {
  context.font = fontOf(Math.min(12, Math.max(9, size * 0.82)));
  context.textBaseline = "middle";
  context.fillStyle = inks.ink;
  for (let i = first(axis); i < last(axis); i++) {
    const middle = start + view[axis] + (i + 0.5) * size;
    if (middle < start || middle > start + side()) continue;
    writeName(context, axis, middle, `${labels[shown[i]].short} · ${datasetName(shown[i])}`, start - STRIP - 8);
  }
}

function writeBlocks(context, axis, start, size) {
  context.font = fontOf(12);
  context.textBaseline = "middle";
  context.fillStyle = inks.ink;
  let free = start; // where the next name may stand
  for (const [from, to, name] of blocks) {
    const [low, high] = [from, to].map(end => Math.min(start + side(), Math.max(start, start + view[axis] + end * size)));
    const middle = Math.max((low + high) / 2, free);
    if (high - low < SMALLEST || middle > high + 4) continue;
    writeName(context, axis, middle, name, start - STRIP - 8);
    free = middle + 15;
  }
}

// ── pointing and moving ──────────────────────────────────────────────────────────────────────────────────────────────

// No gap between the matrix and its frame.
function keep() {
  const slack = side() - pixel() * shown.length;
  for (const axis of ["x", "y"]) view[axis] = Math.min(0, Math.max(slack, view[axis]));
}

export function zoom(by, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const before = pixel();
  const start = begin();
  const i = (x - start - view.x) / before;
  const j = (y - start - view.y) / before;
  view.k = by ? Math.max(1, Math.min(Math.max(1, shown.length / 4), view.k * by)) : 1;
  view.x = x - begin() - i * pixel();
  view.y = y - begin() - j * pixel();
  keep();
  draw();
}

function read(i, j) {
  cell = [i, j];
  const [a, b] = [shown[i], shown[j]];
  const together = a !== b && labels[a].classAt === labels[b].classAt ? " · one class" : "";
  const [one, other] = [a, b].map(row => `${labels[row].name} (${datasetName(row)})`);
  const words = `${one} × ${other}: ${cosine(a, b).toFixed(2)}${together}`;
  byId("heat-readout").textContent = words;
  draw(false);
  return words;
}

function under(x, y) {
  const start = begin();
  const i = Math.floor((y - start - view.y) / pixel());
  const j = Math.floor((x - start - view.x) / pixel());
  const inside = x >= start && y >= start && i >= 0 && j >= 0 && i < shown.length && j < shown.length;
  return inside ? [i, j] : null;
}

function moveCell(dx, dy) {
  if (!shown.length) return false;
  const clamp = value => Math.max(0, Math.min(shown.length - 1, value));
  const next = cell ? [clamp(cell[0] + dy), clamp(cell[1] + dx)] : [0, 0];
  for (const [axis, number] of [
    ["y", next[0]],
    ["x", next[1]],
  ]) {
    const middle = view[axis] + (number + 0.5) * pixel();
    if (middle < 0 || middle > side()) view[axis] += side() / 2 - middle;
  }
  keep();
  draw();
  read(...next);
  return true;
}

dragging(canvas, {
  move: (dx, dy) => {
    view.x += dx;
    view.y += dy;
    keep();
    draw();
  },
  hover: (event, x, y) => {
    const found = x === null ? null : under(x, y);
    tip(event, found && read(...found));
  },
  click: (x, y) => {
    const found = under(x, y);
    if (found) choose(shown[found[0]]);
  },
  wheel: zoom,
});
pictureKeys(canvas, {
  move: moveCell,
  zoom,
  factor: 1.5,
  enter: () => {
    if (cell) choose(shown[cell[0]]);
    return cell !== null;
  },
});
byId("heat-order").addEventListener("change", fill);
when("filter", fill);
when("choice", () => draw(false));
when("colours", recolour);
addEventListener("beforeprint", () => {
  if (old) paint();
});
new IntersectionObserver(
  entries => {
    near = entries.at(-1).isIntersecting;
    if (near && old) paint();
  },
  { rootMargin: "100px" },
).observe(canvas);
