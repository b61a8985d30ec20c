// The table of all labels is sorted by the column whose head is clicked.

import { byId, data, groupSize, labels, tableRows } from "./data.js";

const heads = [...document.querySelectorAll("[data-sort]")];
const pick = row => +row.dataset.pick;
const textOf = cell => row => row.cells[cell].textContent;
const keys = {
  index: row => labels[pick(row)].index,
  size: row => groupSize(pick(row)),
  cosine: row => Number.parseFloat(row.cells[6].textContent) || -2,
  pixels: row => data.counts[pick(row)][0] ?? -1,
  boxes: row => data.counts[pick(row)][1] ?? -1,
};
const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b));

function sort(button, place) {
  const head = button.closest("th");
  const key = keys[button.dataset.sort] || textOf(place);
  const largestFirst = button.dataset.sort in keys && button.dataset.sort !== "index";
  const before = head.getAttribute("aria-sort");
  const down = before === "none" ? largestFirst : before === "ascending";
  for (const other of heads) other.closest("th").setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const keyed = tableRows.map(row => [key(row), pick(row), row]);
  keyed.sort((a, b) => (down ? -1 : 1) * compare(a[0], b[0]) || a[1] - b[1]);
  keyed.forEach(([, , row], number) => {
    tableRows[number] = row;
  });
  byId("table").tBodies[0].append(...tableRows);
}

heads.forEach((button, place) => {
  button.addEventListener("click", () => sort(button, place));
});
