// The chosen label: what it stands for, its class, what contains what, and what lies near it.

import { cosineOf, levelsOf } from "./cosines.js";
import { crops } from "./crops.js";
import { byId, classes, datasetName, family, labels, members, partsOf, textCount, wholesOf } from "./data.js";
import { chip, chips, conceptList, counted, element, grounds, mark, named } from "./dom.js";
import { tabStops } from "./lists.js";
import { on, state, tell, when } from "./state.js";

const FEW = 8;

// The other labels of a class: those with crops first, the others by name.
function company(rows) {
  const pictured = rows.filter(row => crops(row).length);
  const lines = pictured.map(row => element("div", { class: "line" }, chip(row), ...crops(row)));
  return [...lines, ...chips(rows.filter(row => !pictured.includes(row)))];
}
const title = words => element("h4", {}, words);

function relative(other) {
  const { rows, name } = classes[other.classAt];
  const alike = rows.every(row => labels[row].short.toLowerCase() === name.toLowerCase());
  const text = rows.length > 1 && !alike ? element("small", {}, `${name}: `) : "";
  return element("div", { class: "part" }, element("div", {}, text, ...chips(rows, 3)), grounds(other));
}

// A line for each class that contains the label's or lies within it.
function relatives(heading, others, none) {
  if (!others.length) return [title(heading), element("p", {}, none)];
  const lines = others.map(relative);
  const rest = lines.splice(FEW);
  const more = element("details", {}, element("summary", {}, `${rest.length} more`), ...rest);
  return [title(heading), element("div", { class: "rove" }, ...lines, ...(rest.length ? [more] : []))];
}

// Levels and labels of the other texts nearest to a label's, in other datasets that are on.
function nearest(row, count) {
  const levels = levelsOf(labels[row].column);
  const found = [];
  for (let column = 0; column < textCount; column++) {
    if (column === labels[row].column) continue;
    const there = members[column].filter(other => labels[other].dataset !== labels[row].dataset && on(other));
    if (there.length) found.push([levels[column], there]);
  }
  return found.sort((a, b) => b[0] - a[0]).slice(0, count);
}

function nearestCells(row) {
  return nearest(row, 10).flatMap(([value, there]) => {
    const share = ((100 * value) / 255).toFixed(0);
    const same = labels[there[0]].classAt === labels[row].classAt ? element("small", {}, " same class") : "";
    return [
      element("span", { class: "number" }, cosineOf(value).toFixed(2)),
      element("span", {}, chip(there[0]), there.length > 1 ? element("small", {}, ` +${there.length - 1}`) : "", same),
      element("span", { class: "meter", "aria-hidden": "true" }, element("i", { style: `width:${share}%` })),
    ];
  });
}

function describe(row) {
  const label = labels[row];
  const { concepts } = classes[label.classAt];
  const others = family(row).filter(other => other !== row);
  const parts = [`${datasetName(row)}, index ${label.index}`];
  if (label.pixels !== null) parts.push(counted(label.pixels, "pixel", "pixels"));
  if (label.boxes !== null) parts.push(counted(label.boxes, "box", "boxes"));
  const said = others.length ? `one class with ${counted(others.length, "other label", "other labels")}` : "alone";
  byId("said").textContent = `${label.name}, ${datasetName(row)}, ${said}`;
  byId("about-body").replaceChildren(
    element("h3", {}, mark(row), named("span", label.name)),
    element("p", {}, parts.join(" · ")),
    named("p", label.meaning || "No description: only the bare name was embedded.", "sense"),
    ...crops(row),
    title(`Stands for ${counted(concepts.length, "concept", "concepts")}`),
    conceptList(label.classAt, FEW),
    element("p", {}, "Evidence ", grounds(label)),
    ...(label.note ? [element("p", { class: "warning" }, label.note)] : []),
    title(others.length ? `One class with ${counted(others.length, "label", "labels")}` : "A class of its own"),
    element("div", { class: "rove" }, ...company(others)),
    ...relatives("Contains", partsOf.get(label.classAt) || [], "No label of another dataset."),
    ...relatives("Lies within", wholesOf.get(label.classAt) || [], "No label of another dataset."),
    title("Nearest texts of other datasets"),
    element("div", { class: "near rove" }, ...nearestCells(row)),
  );
  byId("about").scrollTop = 0;
}

// `step`: one of many on the way to a label, which the back button leaves out.
export function choose(row, { scroll = true, step = false } = {}) {
  state.chosen = row;
  byId("about").classList.toggle("idle", row === null);
  if (row === null) {
    byId("about-body").replaceChildren();
    byId("said").textContent = "No label is chosen.";
  } else describe(row);
  tabStops(byId("about-body"));
  tell("choice", { scroll, step });
}
byId("let-go").addEventListener("click", () => choose(null));
when("filter", () => {
  if (state.chosen === null) return;
  describe(state.chosen); // the nearest labels are of datasets that are on
  tabStops(byId("about-body"));
});
