// The cosine of every two texts. A level is a cosine in a byte: 0 is `data.low` or less, 255 is 1.

import { data, labels, textCount } from "./data.js";

let packed = null; // the upper triangle, row by row; read when it is first asked for

function unpack() {
  const text = atob(data.cosines);
  packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
}

const start = low => (low * (2 * textCount - low - 3)) / 2 - 1; // where the row of a column would begin

// Of two columns.
export function level(a, b) {
  if (a === b) return 255;
  if (!packed) unpack();
  return a < b ? packed[start(a) + b] : packed[start(b) + a];
}
// A column's with every other.
export function levelsOf(column) {
  const levels = new Uint8Array(textCount).fill(255);
  if (textCount > 1) level(0, 1); // unpacked
  for (let other = 0; other < column; other++) levels[other] = packed[start(other) + column];
  const own = start(column);
  for (let other = column + 1; other < textCount; other++) levels[other] = packed[own + other];
  return levels;
}
export const cosineOf = value => data.low + ((1 - data.low) * value) / 255;
export const cosine = (a, b) => cosineOf(level(labels[a].column, labels[b].column)); // of two labels
