// The search, the scope and the dataset switches decide what the tables and lists show.

import { byId, data, labels, tableRows } from "./data.js";
import { tabStops } from "./lists.js";
import { kept, on, state, tell } from "./state.js";

const chipsOf = element => [...element.querySelectorAll("[data-pick]")].map(chip => +chip.dataset.pick);

const toCheck = new Set(chipsOf(byId("check")));
const inScope = {
  all: () => true,
  merged: row => labels[row].group > 0,
  alone: row => !labels[row].group,
  check: row => toCheck.has(row),
};

// An entry is shown while one of its labels is; where it is marked so, only while all their datasets are on.
const entries = [...document.querySelectorAll("[data-every], [data-some]")].map(element => ({
  element,
  every: "every" in element.dataset,
  rows: chipsOf(element),
}));
const covers = [...document.querySelectorAll(".parents")].map(cell => ({
  parents: chipsOf(cell),
  parts: [...cell.parentElement.querySelectorAll(".part")].map(element => ({ element, rows: chipsOf(element) })),
}));

export function refresh() {
  let found = 0;
  for (const row of tableRows) {
    const number = +row.dataset.pick;
    const keep = kept(number);
    found += keep;
    row.hidden = !(keep && inScope[state.scope](number));
  }
  for (const { element, every, rows } of entries) element.hidden = !(rows.some(kept) && (!every || rows.every(on)));
  for (const { parents, parts } of covers) {
    const all = parents.some(kept);
    for (const { element, rows } of parts) element.hidden = !(rows.some(on) && (all || rows.some(kept)));
  }
  for (const details of document.querySelectorAll("details[data-of]")) {
    details.hidden = state.off.has(+details.dataset.of);
  }
  for (const button of document.querySelectorAll(".switch")) {
    button.setAttribute("aria-pressed", !state.off.has(+button.dataset.dataset));
  }
  byId("found").textContent = `${found} of ${labels.length} labels`;
  tabStops(document);
  tell("filter");
}

export function showOnly(datasets) {
  state.off = new Set(data.datasets.keys());
  for (const number of datasets) state.off.delete(number);
  refresh();
}
