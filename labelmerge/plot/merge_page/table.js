// The table of all labels, sorted by the column whose head is clicked.

import { byId, classes, data, datasetName, family, labels, merged } from "./data.js";
import { amount, element, fixed, grounds, mark, named, number } from "./dom.js";
import { rows } from "./rows.js";
import { kept, state, when } from "./state.js";

const heads = [...document.querySelectorAll("[data-sort]")];
const words = new Intl.Collator("en", { numeric: true });
const compare = (a, b) => (typeof a === "number" ? a - b : words.compare(a, b));
const nearestCell = ({ nearest, cosine }) => {
  if (nearest === null) return [];
  const where = element("small", {}, `${datasetName(nearest)} ${fixed(cosine)}`);
  return [mark(nearest), named("span", labels[nearest].name), " ", where];
};
const keys = {
  name: label => label.name,
  dataset: label => datasetName(label.row),
  class: label => classes[label.classAt].name,
  evidence: label => label.confidence, // the least sure first
  cosine: label => label.cosine ?? -2,
  pixels: label => label.pixels ?? -1,
  boxes: label => label.boxes ?? -1,
};
const largestFirst = new Set(["cosine", "pixels", "boxes"]);

const toCheck = new Set([...data.doubts, ...Object.values(data.pairs).flatMap(list => list.flatMap(([a, b]) => [a, b]))]);
const inScope = {
  all: () => true,
  merged,
  alone: row => !merged(row),
  check: row => toCheck.has(row),
};

function build(row) {
  const label = labels[row];
  const counts = data.counted.map(kind => number(amount(label[kind])));
  const sense = label.meaning ? [named("p", label.meaning, "sense")] : [];
  const { length } = family(row);
  const company = length > 1 ? [" ", element("small", {}, `${length} labels`)] : [];
  return element(
    "tr",
    { "data-pick": row, tabindex: -1, class: row === state.chosen ? "chosen" : "" },
    element("th", { scope: "row" }, named("span", label.name), ...sense),
    element("td", {}, mark(row), datasetName(row), " ", element("small", { title: "its index" }, label.index)),
    element("td", {}, named("span", classes[label.classAt].name), ...company),
    element("td", {}, grounds(label)),
    element("td", {}, ...nearestCell(label)),
    ...counts,
  );
}

let order = labels.map(({ row }) => row);
const choice = () => order.filter(row => kept(row) && inScope[state.scope](row));
const table = rows(byId("labels-list"), build, choice);

function sort(button) {
  const head = button.closest("th");
  const key = button.dataset.sort;
  const before = head.getAttribute("aria-sort");
  const down = before === "none" ? largestFirst.has(key) : before === "ascending";
  for (const other of heads) other.closest("th").setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const keyed = labels.map(label => [keys[key](label), label.row]);
  keyed.sort((a, b) => (down ? -1 : 1) * compare(a[0], b[0]) || a[1] - b[1]);
  order = keyed.map(([, row]) => row);
  table.set(choice());
}

for (const button of heads) button.addEventListener("click", () => sort(button));
when("filter", () => {
  byId("labels-count").textContent = table.items.length.toLocaleString("en");
});
when("choice", ({ scroll }) => {
  const place = state.chosen === null ? -1 : table.items.indexOf(state.chosen);
  if (scroll && place >= 0) table.show(place); // within the table's own box; the page stays where it is
});
