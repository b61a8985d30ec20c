// Crops of the images that a label is given to: one picture for each label that has any.

import { byId, datasetName, labels } from "./data.js";
import { element } from "./dom.js";

let all = null; // read when the first is asked for: they may be most of the page

export const anyCrops = byId("crops").textContent.length > 2;

export function crops(row) {
  if (!anyCrops) return [];
  all ??= JSON.parse(byId("crops").textContent);
  if (all[row] === null) return [];
  const alt = `Images of ${labels[row].name}, ${datasetName(row)}`;
  return [element("img", { class: "crops", src: `data:image/webp;base64,${all[row]}`, alt })];
}
