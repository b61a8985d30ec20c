// The cosine of every two texts. A level is a cosine in a byte: 0 is `data.low` or less, 255 is 1.

import { data, labels, textCount } from "./data.js";

const packed = Uint8Array.from(atob(data.cosines), char => char.charCodeAt(0)); // the upper triangle, row by row

export const square = new Uint8Array(textCount * textCount).fill(255);
for (let i = 0, next = 0; i < textCount; i++) {
  for (let j = i + 1; j < textCount; j++) square[i * textCount + j] = square[j * textCount + i] = packed[next++];
}

export const level = (a, b) => square[a * textCount + b]; // of two columns
export const cosineOf = value => data.low + ((1 - data.low) * value) / 255;
export const cosine = (a, b) => cosineOf(level(labels[a].column, labels[b].column)); // of two labels
