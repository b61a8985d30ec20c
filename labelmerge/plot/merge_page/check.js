// What a person should look at: unsure labels, and pairs of labels.

import { byId, classes, data, labels } from "./data.js";
import { crops } from "./crops.js";
import { chip, conceptList, element, fixed, grounds, named, number } from "./dom.js";
import { rows } from "./rows.js";
import { kept, on, when } from "./state.js";

const said = { contains: "contains", part_of: "lies within", overlaps: "overlaps", "": "unrelated" };
const sense = row => named("p", labels[row].meaning, "sense");
const side = row => element("td", { class: "side" }, chip(row), sense(row), ...crops(row));

function buildDoubt(row) {
  const { note, nearest, cosine, classAt } = labels[row];
  const how = element("small", {}, `nearest ${fixed(cosine)} `);
  const near = nearest === null ? [] : [how, chip(nearest), sense(nearest), ...crops(nearest)];
  return element(
    "tr",
    { class: "pair" },
    side(row),
    element("td", { class: "side" }, note || "No note.", conceptList(classAt, 4), grounds(labels[row])),
    element("td", { class: "side" }, ...near),
  );
}

const pairRow = relationOf => pair => {
  const [a, b, cosine] = pair;
  const relation = element("td", { class: "relation" }, relationOf(pair));
  return element("tr", { class: "pair" }, number(fixed(cosine)), side(a), relation, side(b));
};
const relations = {
  "same-name": pair => said[pair[3]],
  "other-name": ([a]) => `one class: ${classes[labels[a].classAt].name}`,
  "near-misses": () => "unrelated",
  "same-dataset": pair => said[pair[3]],
};

function list(id, build, choose) {
  const made = rows(byId(id), build, choose);
  when("filter", () => {
    byId(`${id}-count`).textContent = made.items.length.toLocaleString("en");
  });
}

list("unsure", buildDoubt, () => data.doubts.filter(kept));
for (const [id, pairs] of Object.entries(data.pairs)) {
  list(id, pairRow(relations[id]), () => pairs.filter(([a, b]) => on(a) && on(b) && (kept(a) || kept(b))));
}
