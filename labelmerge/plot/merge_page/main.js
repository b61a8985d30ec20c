// Everything the page does, begun; clicks and keys that belong to no single part.

import "./bar.js";
import "./table.js";
import "./classes.js";
import "./check.js";
import "./datasets.js";
import { choose } from "./about.js";
import { follow } from "./address.js";
import { byId } from "./data.js";
import { refresh, showOnly } from "./filter.js";
import { draw as drawHeat, zoom as zoomHeat } from "./heat.js";
import { itemOf, moveFocus } from "./lists.js";
import { draw as drawMap, zoom as zoomMap } from "./map.js";
import { repaint } from "./theme.js";

document.addEventListener("keydown", event => {
  const list = event.target.closest?.(".rove");
  const item = itemOf(event.target);
  if (list && item === event.target) {
    if (moveFocus(list, item, event.key)) event.preventDefault();
    else if (event.key === "Enter" && item.tagName === "TR") choose(+item.dataset.pick, { scroll: false });
  }
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "/" && !typing) {
    byId("search").focus();
    event.preventDefault();
  } else if (event.key === "Escape" && !typing) choose(null);
});

document.addEventListener("click", event => {
  const item = event.target.closest("[data-pick]");
  const solo = event.target.closest("[data-solo]");
  const zoom = event.target.closest("[data-zoom]");
  if (item) choose(+item.dataset.pick, { scroll: item.tagName !== "TR" });
  if (solo) showOnly(solo.dataset.solo.split(" ").map(Number));
  if (zoom) {
    const [which, by] = zoom.dataset.zoom.split(":");
    ({ map: zoomMap, heat: zoomHeat })[which](+by);
  }
});

new ResizeObserver(() => {
  drawMap();
  drawHeat();
}).observe(document.querySelector("main"));
refresh();
repaint();
follow();
