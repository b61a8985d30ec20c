// The labels that a search finds, below the box in which one types: arrow keys step, Enter chooses.

import { choose } from "./about.js";
import { byId, datasetName, labels } from "./data.js";
import { element, mark, named } from "./dom.js";
import { kept, state } from "./state.js";

const MOST = 12;
const box = byId("search");
const list = byId("results");
let active = -1;

const begins = name => name.split(/[\s,/_-]+/).some(part => part.startsWith(state.words[0]));

// A name that is what was typed comes first, then one that begins so, then one with a word that does.
function rank({ name, short }) {
  const typed = state.words.join(" ");
  const lower = [name, short].map(each => each.toLowerCase());
  if (lower.includes(typed)) return 0;
  if (lower.some(each => each.startsWith(typed))) return 1;
  if (lower.some(begins)) return 2;
  return lower.some(each => each.includes(state.words[0])) ? 3 : 4;
}

function option(label, place) {
  const { row } = label;
  const dataset = element("small", {}, datasetName(row));
  const attributes = { role: "option", id: `result-${place}`, "aria-selected": "false", "data-result": row };
  return element("li", attributes, mark(row), named("b", label.name), " ", dataset);
}

export function close() {
  list.hidden = true;
  active = -1;
  box.setAttribute("aria-expanded", "false");
  box.removeAttribute("aria-activedescendant");
}

export function offer() {
  if (!state.words.length || document.activeElement !== box) {
    close();
    return;
  }
  const found = labels.filter(({ row }) => kept(row)).map(label => [rank(label), label]);
  found.sort((a, b) => a[0] - b[0] || a[1].name.length - b[1].name.length || a[1].row - b[1].row);
  const left = found.length - MOST;
  const more = left > 0 ? [element("li", { class: "more", role: "presentation" }, `and ${left} more, in the lists`)] : [];
  const none = found.length ? [] : [element("li", { class: "more", role: "presentation" }, "No label is called so.")];
  list.replaceChildren(...found.slice(0, MOST).map(([, label], place) => option(label, place)), ...more, ...none);
  list.hidden = false;
  active = -1;
  box.setAttribute("aria-expanded", "true");
  box.removeAttribute("aria-activedescendant");
}

function step(by) {
  const options = list.querySelectorAll("[role=option]");
  if (!options.length) return;
  options[active]?.setAttribute("aria-selected", "false");
  active = active < 0 && by < 0 ? options.length - 1 : (active + by + options.length) % options.length;
  options[active].setAttribute("aria-selected", "true");
  options[active].scrollIntoView({ block: "nearest" });
  box.setAttribute("aria-activedescendant", options[active].id);
}

function pick(row) {
  close();
  choose(row);
}

box.addEventListener("keydown", event => {
  const { key } = event;
  if (key === "ArrowDown" || key === "ArrowUp") {
    if (list.hidden) offer();
    step(key === "ArrowDown" ? 1 : -1);
    event.preventDefault();
  } else if (key === "Enter") {
    const options = list.querySelectorAll("[role=option]");
    if (list.hidden) offer();
    else if (options.length) pick(+options[Math.max(active, 0)].dataset.result);
  } else if (key === "Escape" && !list.hidden) {
    close();
    event.preventDefault(); // the first time it closes the list, the second time it empties the box
  }
});
box.addEventListener("focus", offer);
box.addEventListener("blur", close);
list.addEventListener("pointerdown", event => {
  const row = event.target.closest("[data-result]")?.dataset.result;
  event.preventDefault(); // the box keeps the focus
  if (row !== undefined) pick(+row);
});
