// The search, the scope and the dataset switches decide what the tables and lists show.

import { byId, data, labels } from "./data.js";
import { counted } from "./dom.js";
import { findHits, kept, state, tell } from "./state.js";

export function refresh() {
  findHits();
  for (const details of document.querySelectorAll("details[data-of]")) {
    details.hidden = state.off.has(+details.dataset.of);
  }
  for (const button of document.querySelectorAll("[data-dataset]")) {
    button.setAttribute("aria-pressed", !state.off.has(+button.dataset.dataset));
  }
  const found = labels.reduce((sum, { row }) => sum + kept(row), 0);
  byId("found").textContent = `${found.toLocaleString("en")} of ${counted(labels.length, "label", "labels")}`;
  const shown = data.datasets.length - state.off.size;
  byId("shown-datasets").textContent = `${state.off.size ? `${shown} of` : "all"} ${data.datasets.length}`;
  tell("filter");
}

export function showOnly(datasets) {
  state.off = new Set(data.datasets.keys());
  for (const number of datasets) state.off.delete(number);
  refresh();
}
