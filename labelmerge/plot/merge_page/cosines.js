// The cosine of every two texts. A level is a cosine in a byte: 0 is `data.low` or less, 255 is 1.

import { data, labels, textCount } from "./data.js";

let packed = null; // the upper triangle, row by row; read when it is first asked for

function unpack() {
  const text = atob(data.cosines);
  packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
}

// Of two columns.
export function level(a, b) {
  if (a === b) return 255;
  if (!packed) unpack();
  const [low, high] = a < b ? [a, b] : [b, a];
  return packed[(low * (2 * textCount - low - 3)) / 2 + high - 1];
}
// A column's with every other.
export function levelsOf(column) {
  return Uint8Array.from({ length: textCount }, (_, other) => level(column, other));
}
export const cosineOf = value => data.low + ((1 - data.low) * value) / 255;
export const cosine = (a, b) => cosineOf(level(labels[a].column, labels[b].column)); // of two labels
