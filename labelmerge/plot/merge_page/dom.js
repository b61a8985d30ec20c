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

export function chip(row) {
  const name = element("b", {}, labels[row].name);
  const dataset = element("span", {}, datasetName(row));
  const chosen = row === state.chosen ? " chosen" : "";
  return element("button", { class: `chip${chosen}`, "data-pick": row, tabindex: -1 }, mark(row), name, " ", dataset);
}

// The first labels, and how many more there are.
export function chips(rows, most) {
  const more = rows.length > most ? [element("small", {}, `and ${rows.length - most} more`)] : [];
  return [...rows.slice(0, most).map(chip), ...more];
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
