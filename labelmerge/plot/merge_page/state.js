// What is searched, shown and chosen, and who is told when that changes.

import { labels, names, namesAndMeanings } from "./data.js";

export const state = { words: [], everywhere: false, off: new Set(), scope: "all", chosen: null, pointed: null };

export const on = row => !state.off.has(labels[row].dataset);
export const hit = row => {
  const searched = state.everywhere ? namesAndMeanings : names;
  return state.words.every(word => searched[row].includes(word));
};
export const kept = row => on(row) && hit(row); // what search and switches leave

const listeners = { filter: [], choice: [], colours: [] };
export const when = (what, listener) => listeners[what].push(listener);
export const tell = what => {
  for (const listener of listeners[what]) listener();
};
