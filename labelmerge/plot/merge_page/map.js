// The map: every label a mark, labels of similar meaning side by side.

import { choose } from "./about.js";
import { dragging, drawMark, fontOf, layered, pictureKeys, tip } from "./canvas.js";
import { byId, classes, data, datasetName, family, labels, members } from "./data.js";
import { hit, kept, on, state, when } from "./state.js";
import { inks } from "./theme.js";

const PAD = 34; // pixels around the places
const NEAR = 2.5; // times zoomed in, beyond which groups have no names
const MOST = 60; // times that one can zoom in
const canvas = byId("map-canvas");
const layers = layered(canvas);
const view = { k: 1, x: 0, y: 0 };
let frame = [0, 0];

const spans = [0, 1].map(axis => {
  const values = data.places.map(place => place[axis]);
  return [Math.min(...values), Math.max(...values)];
});
const filled = place =>
  place.map((value, axis) => {
    const [low, high] = spans[axis]; // the map fills its frame
    return high > low ? (value - low) / (high - low) : 0.5;
  });
const places = data.places.map(filled);
const groups = data.groups.map(([x, y, name]) => [filled([x, y]), name]);
const numbers = []; // row → its number among the labels of its text
for (const own of members) {
  own.forEach((row, number) => {
    numbers[row] = number;
  });
}

const smallest = Math.max(3.4, Math.min(6, 90 / Math.sqrt(labels.length))); // few labels are drawn larger
const radius = () => Math.min(7.5, smallest * Math.sqrt(view.k));

const spot = place => [0, 1].map(axis => (PAD + place[axis] * (frame[axis] - 2 * PAD)) * view.k + view["xy"[axis]]);

// Where a label lies on the canvas; labels of one text lie around one point, in a spiral.
function at(row) {
  const [x, y] = spot(places[labels[row].column]);
  const angle = 2.4 * numbers[row];
  const out = 1.15 * radius() * Math.sqrt(numbers[row]);
  return [x + out * Math.cos(angle), y + out * Math.sin(angle)];
}

// ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────────

function drawLines(context, rows) {
  const there = rows.filter(on).map(at);
  const middle = [0, 1].map(axis => there.reduce((sum, point) => sum + point[axis], 0) / there.length);
  context.beginPath();
  for (const [x, y] of there) {
    context.moveTo(...middle);
    context.lineTo(x, y);
  }
  context.stroke();
}

const widths = new Map();
function widthOf(context, name) {
  context.font = fontOf(12);
  context.textBaseline = "middle";
  if (!widths.has(name)) widths.set(name, context.measureText(name).width);
  return widths.get(name);
}

export function draw(stale = true) {
  frame = [canvas.clientWidth, canvas.clientHeight];
  const [context, width] = layers(stale, paint);
  const size = radius();
  const pointers = [state.chosen, state.pointed].filter(row => row !== null && on(row));
  const special = new Set(pointers.flatMap(family).filter(on));
  context.strokeStyle = inks.chosen;
  context.lineWidth = 1.6;
  for (const row of pointers) drawLines(context, family(row));
  for (const row of special) {
    context.fillStyle = data.datasets[labels[row].dataset].colour;
    context.strokeStyle = pointers.includes(row) ? inks.chosen : inks.ink;
    context.lineWidth = row === state.chosen ? 3 : 1.4;
    drawMark(context, row, ...at(row), size * (row === state.chosen ? 1.7 : 1.25));
  }
  for (const row of pointers) {
    const [x, y] = at(row);
    const name = labels[row].short;
    const long = widthOf(context, name);
    const right = x + 2 * size + 4;
    const left = right + long < width ? right : x - 2 * size - 4 - long;
    context.fillStyle = inks.paper;
    context.globalAlpha = 0.85;
    context.fillRect(left - 3, y - 9, long + 6, 18);
    context.globalAlpha = 1;
    context.fillStyle = inks.chosen;
    context.fillText(name, left, y);
  }
}

function paint(context, width, height) {
  if (byId("map-lines").checked) {
    context.strokeStyle = inks.soft;
    context.globalAlpha = 0.35;
    for (const { rows } of classes) if (rows.length > 1) drawLines(context, rows);
  }
  context.lineWidth = 0.8;
  context.strokeStyle = inks.paper;
  for (const faint of [true, false]) {
    for (const { row, dataset } of labels) {
      if (!on(row) || !hit(row) !== faint) continue;
      context.globalAlpha = faint ? 0.13 : 0.92;
      context.fillStyle = data.datasets[dataset].colour;
      drawMark(context, row, ...at(row), radius());
    }
  }
  context.globalAlpha = 1;
  if (byId("map-names").checked) writeNames(context, width, height);
}

// What lies together, named large: until one has come near, and while nothing is sought. Returns the names' boxes.
function writeGroups(context, width, height) {
  const taken = [];
  if (view.k > NEAR || state.words.length || state.off.size) return taken;
  context.font = `650 ${fontOf(15)}`;
  context.lineWidth = 4;
  for (const [place, name] of groups) {
    const long = context.measureText(name).width;
    const [x, y] = spot(place);
    if (x < 0 || y < 10 || x > width || y > height - 10) continue;
    const left = Math.max(4, Math.min(width - long - 4, x - long / 2));
    if (taken.some(box => left < box[1] && left + long > box[0] && y - 10 < box[3] && y + 10 > box[2])) continue;
    taken.push([left - 4, left + long + 4, y - 10, y + 10]);
    context.strokeText(name, left, y);
    context.fillText(name, left, y);
  }
  return taken;
}

// Names stand where they cover no other name; those of the most labels come first.
function writeNames(context, width, height) {
  context.lineJoin = "round";
  context.textBaseline = "middle";
  context.strokeStyle = inks.paper;
  context.fillStyle = inks.ink;
  const taken = writeGroups(context, width, height);
  const high = 7;
  context.lineWidth = 3;
  const order = members
    .map(rows => {
      const shown = rows.filter(kept);
      return { first: shown[0], rank: shown.length };
    })
    .filter(({ rank }) => rank)
    .sort((a, b) => b.rank - a.rank);
  for (const { first, rank } of order) {
    const [x, y] = at(first);
    const gap = radius() * (1 + 1.15 * Math.sqrt(Math.min(rank, 5) - 1)) + 3; // beside the labels of one text
    if (x < 0 || y < 0 || x > width || y > height) continue;
    const name = labels[first].short;
    const long = widthOf(context, name);
    const inside = (left, middle) => left > 2 && left + long < width - 2 && middle > high && middle < height - high;
    const free = (left, middle) =>
      taken.every(box => left > box[1] || left + long < box[0] || middle - high > box[3] || middle + high < box[2]);
    const spots = [
      [x + gap, y],
      [x - gap - long, y],
      [x - long / 2, y - gap - 5],
      [x - long / 2, y + gap + 5],
    ];
    const room = spots.find(each => inside(...each) && free(...each));
    if (!room) continue;
    taken.push([room[0] - 4, room[0] + long + 4, room[1] - high, room[1] + high]);
    context.strokeText(name, ...room);
    context.fillText(name, ...room);
  }
}

// ── pointing and moving ──────────────────────────────────────────────────────────────────────────────────────────────

function under(x, y) {
  let best = null;
  let least = 14 ** 2;
  for (const { row } of labels) {
    if (!on(row)) continue;
    const [px, py] = at(row);
    const distance = (px - x) ** 2 + (py - y) ** 2;
    if (distance < least) [best, least] = [row, distance];
  }
  return best;
}

const chosenAndOn = () => state.chosen !== null && on(state.chosen);

const outside = (value, low, high) => value - Math.max(low, Math.min(high, value));

// The kept label that lies least far from a box on the canvas, and how far each way; null where none is kept.
function nearestTo(left, top, right, bottom) {
  let best = null;
  let least = Number.POSITIVE_INFINITY;
  for (const { row } of labels) {
    if (!kept(row)) continue;
    const [x, y] = at(row);
    const [dx, dy] = [outside(x, left, right), outside(y, top, bottom)];
    if (dx * dx + dy * dy < least) [best, least] = [{ row, dx, dy }, dx * dx + dy * dy];
  }
  return best;
}

// However one zooms and drags, a label is to be seen.
function stay() {
  const [width, height] = frame;
  const inset = Math.min(PAD, width / 3, height / 3);
  const near = nearestTo(inset, inset, width - inset, height - inset);
  if (!near) return;
  view.x -= near.dx;
  view.y -= near.dy;
}

// What the buttons and keys zoom into.
function focus() {
  if (chosenAndOn()) return at(state.chosen);
  const [x, y] = frame.map(length => length / 2);
  const near = nearestTo(x, y, x, y);
  return near ? at(near.row) : [x, y];
}

// Around the pointer, else the chosen label, else the label nearest to the middle; 0 shows all.
export function zoom(by, ...centre) {
  const k = by ? Math.max(1, Math.min(MOST, view.k * by)) : 1;
  const [x, y] = centre.length ? centre : focus();
  if (k === 1) Object.assign(view, { k: 1, x: 0, y: 0 });
  else Object.assign(view, { k, x: x - ((x - view.x) * k) / view.k, y: y - ((y - view.y) * k) / view.k });
  stay();
  draw();
}

function intoView(row) {
  const [x, y] = at(row);
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width || x >= 20 && y >= 20 && x <= width - 20 && y <= height - 20) return;
  view.x += width / 2 - x;
  view.y += height / 2 - y;
  draw();
}

// To the nearest label in a direction.
function step(dx, dy) {
  const from = chosenAndOn() ? state.chosen : labels.findIndex((_, row) => kept(row));
  if (from < 0) return;
  if (state.chosen !== from) {
    choose(from, { step: true });
    return;
  }
  const [x, y] = at(from);
  let best = null;
  let least = Number.POSITIVE_INFINITY;
  for (const { row } of labels) {
    if (row === from || !kept(row)) continue;
    const [px, py] = at(row);
    const along = (px - x) * dx + (py - y) * dy;
    const across = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
    if (along > 0.5 && across <= 1.5 * along && along + 2 * across < least) [best, least] = [row, along + 2 * across];
  }
  if (best !== null) {
    choose(best, { step: true });
  }
}

function tipOf(row) {
  const count = family(row).length;
  const company = count > 1 ? `class of ${count} labels` : "a class of its own";
  return `${labels[row].name} · ${datasetName(row)}\n${company}`;
}

dragging(canvas, {
  move: (dx, dy) => {
    view.x += dx;
    view.y += dy;
    stay();
    draw();
  },
  hover: (event, x, y) => {
    const row = x === null ? null : under(x, y);
    tip(event, row === null ? null : tipOf(row));
    if (row !== state.pointed) {
      state.pointed = row;
      draw(false);
    }
  },
  click: (x, y) => {
    const row = under(x, y);
    if (row !== null) choose(row);
  },
  wheel: zoom,
});
pictureKeys(canvas, {
  move: (dx, dy) => {
    step(dx, dy);
    return true;
  },
  zoom,
  factor: 1.4,
});
for (const id of ["map-lines", "map-names"]) byId(id).addEventListener("change", () => draw());
when("filter", () => draw());
when("choice", () => {
  if (chosenAndOn()) intoView(state.chosen); // wherever it was chosen
  draw(false);
});
when("colours", () => draw());
