// What is searched, shown and chosen, and who is told when that changes.

import { datasetName, labels } from "./data.js";

export const state = { words: [], everywhere: false, off: new Set(), scope: "all", chosen: null, pointed: null };

// What the search looks through, in lower case: names and datasets, or the meanings too.
const names = labels.map(label => `${label.name} ${datasetName(label.row)}`.toLowerCase());
const searchedIn = row => (state.everywhere ? `${names[row]} ${labels[row].meaning.toLowerCase()}` : names[row]);
const hits = new Uint8Array(labels.length).fill(1);

export function findHits() {
  for (const { row } of labels) {
    const text = state.words.length ? searchedIn(row) : "";
    hits[row] = state.words.every(word => text.includes(word)) ? 1 : 0;
  }
}
export const hit = row => hits[row] === 1;
export const on = row => !state.off.has(labels[row].dataset);
export const kept = row => on(row) && hit(row); // what search and switches leave

const listeners = { filter: [], choice: [], colours: [] };
export const when = (what, listener) => listeners[what].push(listener);
export const tell = (what, how) => {
  for (const listener of listeners[what]) listener(how);
};
