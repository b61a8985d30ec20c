// The address follows what is chosen: a label can be linked to, and the back button leads to the one before.

import { choose } from "./about.js";
import { datasetName, labels } from "./data.js";
import { state, when } from "./state.js";

const MARK = "#label=";

const hashOf = row => `${MARK}${encodeURIComponent(datasetName(row))}:${labels[row].index}`;

function rowOf(hash) {
  if (!hash.startsWith(MARK)) return -1;
  const [dataset, index] = hash.slice(MARK.length).split(":");
  return labels.findIndex(({ row, index: own }) => encodeURIComponent(datasetName(row)) === dataset && own === +index);
}

// Where a page has no address of its own, as in a frame, it is not remembered.
function remember(how, row, hash) {
  try {
    history[how]({ chosen: row }, "", hash);
  } catch {}
}

// What the address says, where it says something; a link within the page leaves the choice as it is.
export function follow() {
  const row = rowOf(location.hash);
  const known = history.state ? history.state.chosen : state.chosen;
  const chosen = row >= 0 ? row : known in labels ? known : null; // the page may have been made anew
  remember("replaceState", chosen, location.hash || location.href.split("#")[0]);
  if (chosen !== state.chosen) choose(chosen);
}

when("choice", ({ step }) => {
  const before = history.state?.chosen ?? null;
  if (before === state.chosen) return;
  const hash = state.chosen === null ? location.href.split("#")[0] : hashOf(state.chosen);
  remember(step && before !== null ? "replaceState" : "pushState", state.chosen, hash);
});
addEventListener("popstate", follow);
