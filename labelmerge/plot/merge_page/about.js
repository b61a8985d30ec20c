// The chosen label: what it means, its group, and what lies near it.

import { cosineOf, level } from "./cosines.js";
import { byId, data, datasetName, groups, labels, meanings, members, tableRows, textCount } from "./data.js";
import { tabStops } from "./lists.js";
import { on, state, tell } from "./state.js";

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
const mark = row => element("i", { class: `mark d${labels[row].dataset}` });
const chip = row => {
  const name = element("b", {}, labels[row].name);
  const dataset = element("span", {}, datasetName(row));
  return element("button", { class: "chip", "data-pick": row }, mark(row), name, " ", dataset);
};
const counted = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

// A chip for each kind, which is a list of labels.
function relatives(title, kinds, most = 8) {
  if (!kinds.length) return [];
  const chips = kinds
    .slice(0, most)
    .flatMap(rows => [chip(rows[0]), rows.length > 1 ? element("small", {}, `+${rows.length - 1} `) : ""]);
  const more = kinds.length > most ? element("small", {}, `and ${kinds.length - most} more`) : "";
  return [element("h4", {}, title), element("div", { class: "rove" }, ...chips, more)];
}

// Levels and labels of the other texts nearest to a label's, in other datasets that are on.
function nearest(row, count) {
  const found = [];
  for (let column = 0; column < textCount; column++) {
    if (column === labels[row].column) continue;
    const there = members[column].filter(other => labels[other].dataset !== labels[row].dataset && on(other));
    if (there.length) found.push([level(labels[row].column, column), there]);
  }
  return found.sort((a, b) => b[0] - a[0]).slice(0, count);
}

function nearestCells(row) {
  const { group } = labels[row];
  return nearest(row, 10).flatMap(([value, there]) => {
    const share = ((100 * value) / 255).toFixed(0);
    return [
      element("span", { class: "number" }, cosineOf(value).toFixed(2)),
      element(
        "span",
        {},
        chip(there[0]),
        there.length > 1 ? element("small", {}, ` +${there.length - 1}`) : "",
        group && labels[there[0]].group === group ? element("small", {}, " same group") : "",
      ),
      element("span", { class: "meter", "aria-hidden": "true" }, element("i", { style: `width:${share}%` })),
    ];
  });
}

function describe(row) {
  const label = labels[row];
  const others = label.group ? groups[label.group].filter(other => other !== row) : [];
  const [pixels, boxes] = data.counts[row];
  const parts = [`${datasetName(row)}, index ${label.index}`];
  if (pixels !== null) parts.push(counted(pixels, "pixel", "pixels"));
  if (boxes !== null) parts.push(counted(boxes, "box", "boxes"));
  const wholes = data.covers.filter(([, kinds]) => kinds.some(kind => kind.includes(row))).map(([whole]) => whole);
  const included = data.covers.filter(([whole]) => whole.includes(row)).flatMap(([, kinds]) => kinds);
  const company = others.length ? `in a group with ${counted(others.length, "other", "others")}` : "alone";
  byId("said").textContent = `${label.name}, ${datasetName(row)}, ${company}`;
  byId("about-body").replaceChildren(
    element("h3", {}, mark(row), label.name),
    element("p", {}, parts.join(" · ")),
    element("p", { class: "sense" }, meanings[row] || "No description: only the bare name was embedded."),
    element("h4", {}, others.length ? `In the group “${data.groups[label.group - 1]}” with` : "In no group"),
    element("div", { class: "rove" }, ...others.map(chip)),
    ...relatives("Seems to be a part of", wholes),
    ...relatives("Seems to include", included),
    element("h4", {}, "Other texts nearest, in other datasets"),
    element("div", { class: "near rove" }, ...nearestCells(row)),
  );
  tabStops(byId("about-body"));
}

// Within the table's own box; the page stays where it is.
function scrollTable(row) {
  const box = byId("table").parentElement;
  const place = tableRows.find(each => +each.dataset.pick === row);
  if (!place.hidden) box.scrollTop = place.offsetTop - box.clientHeight / 2;
}

export function choose(row, { scroll = true } = {}) {
  state.chosen = row;
  for (const old of document.querySelectorAll(".chosen")) old.classList.remove("chosen");
  if (row === null) {
    byId("about-body").replaceChildren(element("p", { class: "empty" }, "No label is chosen."));
    byId("said").textContent = "No label is chosen.";
  } else {
    describe(row);
    for (const same of document.querySelectorAll(`main [data-pick="${row}"]`)) same.classList.add("chosen");
    if (scroll) scrollTable(row);
  }
  tell("choice");
}
