// What is searched, shown and chosen, and who is told when that changes.

import { datasetName, labels } from "./data.js";

export const state = { words: [], everywhere: false, off: new Set(), scope: "all", chosen: null, pointed: null };

// What the search looks through, in lower case: names, datasets from their first letter on, and maybe the meanings.
const names = labels.map(label => label.name.toLowerCase());
const owners = labels.map(label => datasetName(label.row).toLowerCase());
const has = (row, word) =>
  names[row].includes(word) ||
  owners[row].startsWith(word) ||
  (state.everywhere && labels[row].meaning.toLowerCase().includes(word));
const hits = new Uint8Array(labels.length).fill(1);

export function findHits() {
  for (const { row } of labels) {
    hits[row] = state.words.every(word => has(row, word)) ? 1 : 0;
  }
}
export const hit = row => hits[row] === 1;
export const on = row => !state.off.has(labels[row].dataset);
export const kept = row => on(row) && hit(row); // what search and switches leave

export const narrowed = () => state.words.length > 0 || state.off.size > 0 || state.scope !== "all";

const listeners = { filter: [], choice: [], colours: [] };
export const when = (what, listener) => listeners[what].push(listener);
export const tell = (what, how) => {
  for (const listener of listeners[what]) listener(how);
};
