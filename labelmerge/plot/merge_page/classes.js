// The lists of classes, and of classes that contain others.

import { byId, classes, covers, data, labels } from "./data.js";
import { amount, chips, conceptList, element, fixed, grounds, named, number } from "./dom.js";
import { rows } from "./rows.js";
import { kept, on, when } from "./state.js";

const PARTS = 10; // of a class that are shown before one asks for all
const opened = new Set(); // the classes of which all parts are shown
const listed = classes.map((_, place) => place).slice(0, data.merged);

function sum(own, what) {
  const known = own.map(row => labels[row][what]).filter(value => value !== null);
  return known.length ? known.reduce((a, b) => a + b) : null;
}

const head = place => {
  const { name, concepts } = classes[place];
  const list = concepts.length > 1 || concepts[0] !== name ? [conceptList(place, 4)] : [];
  return element("th", { scope: "row" }, named("span", name), ...list);
};

function buildClass(place) {
  const own = classes[place];
  const counts = data.counted.map(what => number(amount(sum(own.rows, what))));
  return element(
    "tr",
    {},
    head(place),
    element("td", {}, ...chips(own.rows.filter(on))),
    element("td", {}, grounds(own)),
    number(fixed(own.lowest)),
    ...counts,
  );
}

const line = part =>
  element("div", { class: "part" }, element("div", {}, ...chips(classes[part.classAt].rows.filter(on), 4)), grounds(part));

function buildCover({ whole, parts }) {
  const shown = opened.has(whole) ? parts : parts.slice(0, PARTS);
  const left = parts.length - shown.length;
  const more = left ? [element("button", { class: "more", "data-open": whole }, `${left} more`)] : [];
  return element(
    "tr",
    {},
    head(whole),
    element("td", {}, ...chips(classes[whole].rows.filter(on), 6)),
    element("td", {}, ...shown.map(line), ...more),
  );
}

// A class is shown while one of its labels is; a part, while it or what contains it is.
const some = (place, test) => classes[place].rows.some(test);
const keptCovers = rests => () =>
  covers
    .filter(({ whole, rest }) => rest === rests && some(whole, on))
    .map(({ whole, parts }) => ({
      whole,
      parts: parts.filter(({ classAt }) => some(classAt, on) && (some(whole, kept) || some(classAt, kept))),
    }))
    .filter(({ parts }) => parts.length);

const classRows = rows(byId("classes-list"), buildClass, () => listed.filter(place => some(place, kept)));

function coverList(box, rests) {
  const found = rows(box, buildCover, keptCovers(rests));
  box.addEventListener("click", event => {
    const whole = event.target.closest("[data-open]")?.dataset.open;
    if (whole === undefined) return;
    opened.add(+whole);
    const cover = found.items.find(each => each.whole === +whole);
    event.target.closest("tr").replaceWith(buildCover(cover));
  });
  return found;
}

const coverRows = coverList(byId("contains-list"), 0);
if (byId("rest-list")) coverList(byId("rest-list"), 1);

when("filter", () => {
  byId("classes-count").textContent = classRows.items.length.toLocaleString("en");
  byId("contains-count").textContent = coverRows.items.length.toLocaleString("en");
});
