// The pieces that lists and the chosen label are made of.

import { classes, datasetName, labels } from "./data.js";
import { state } from "./state.js";

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
export const mark = row => element("i", { class: `mark d${labels[row].dataset}` });

// Words that may be of any script, from left to right or from right to left.
export const named = (tag, words, kind) => element(tag, { dir: "auto", ...(kind && { class: kind }) }, words);

function pickable(row, ...words) {
  const chosen = row === state.chosen ? " chosen" : "";
  return element("button", { class: `chip${chosen}`, "data-pick": row, tabindex: -1 }, mark(row), ...words);
}

export const chip = row => pickable(row, named("b", labels[row].name), " ", element("span", {}, datasetName(row)));

// Labels of one name are a row of their datasets behind the name, which is written once.
function sameName(rows) {
  if (rows.length === 1) return chip(rows[0]);
  const datasets = rows.map(row => {
    const made = pickable(row, element("span", {}, datasetName(row)));
    made.setAttribute("aria-label", `${labels[row].name}, ${datasetName(row)}`);
    return made;
  });
  return element("span", { class: "same" }, named("b", labels[rows[0]].name), ...datasets);
}

// The first labels, by name, and how many more there are.
export function chips(rows, most = rows.length) {
  const byName = new Map();
  for (const row of rows) {
    const name = labels[row].name.toLowerCase();
    byName.set(name, [...(byName.get(name) || []), row]);
  }
  let left = most;
  const shown = [];
  for (const own of byName.values()) {
    if (left > 0) shown.push(sameName(own.slice(0, left)));
    left -= own.length;
  }
  return left < 0 ? [...shown, element("small", {}, `and ${-left} more`)] : shown;
}

export const counted = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
export const number = value => element("td", { class: "number" }, value);
export const fixed = (value, digits = 3) => (value === null ? "" : value.toFixed(digits));
export const amount = value => (value === null ? "" : value.toLocaleString("en", { notation: "compact" }));

export function grounds({ evidence, confidence }) {
  return element("small", { class: "grounds" }, `${evidence} ${confidence.toFixed(2)}`);
}

// A class's concepts: the first few, and the others when asked for.
export function conceptList(classAt, most) {
  const { concepts } = classes[classAt];
  const first = concepts.slice(0, most).join("; ");
  if (concepts.length <= most) return element("p", { class: "concepts" }, first);
  const rest = element("summary", {}, `${first}; and ${concepts.length - most} more`);
  return element("details", { class: "concepts" }, rest, concepts.slice(most).join("; "));
}
