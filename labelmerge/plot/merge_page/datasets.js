// The labels of a dataset that have no counterpart, listed when they are asked for.

import { datasetName, labels, merged } from "./data.js";
import { chip } from "./dom.js";
import { tabStop } from "./lists.js";

for (const details of document.querySelectorAll("details[data-of]")) {
  const list = details.querySelector("p");
  details.addEventListener("toggle", () => {
    if (list.childNodes.length) return;
    const alone = labels.filter(({ row, dataset }) => dataset === +details.dataset.of && !merged(row));
    if (alone.length) list.append(...alone.map(({ row }) => chip(row)));
    else list.append("Every label has a counterpart in another dataset.");
    tabStop(list);
  });
}
for (const list of document.querySelectorAll("#datasets .rove")) tabStop(list);
for (const cell of document.querySelectorAll("td[data-solo]")) {
  const [row, other] = cell.dataset.solo.split(" ").map(place => datasetName(labels.findIndex(l => l.dataset === +place)));
  cell.title = `${cell.textContent} labels of ${row} share a class with labels of ${other}`;
}
