// The bar: search, scope, dataset switches.

import { byId, data } from "./data.js";
import { refresh, showOnly } from "./filter.js";
import { tabStop } from "./lists.js";
import { offer } from "./results.js";
import { state } from "./state.js";

const GAP = 8; // pixels above the search where the bar has stuck
const PAUSE = 120; // ms without a key before the search begins
const bar = document.querySelector(".bar");
const switches = document.querySelector(".switches");
let waiting = 0;

byId("search").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    state.words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    refresh();
    offer();
  }, PAUSE);
});
byId("everywhere").addEventListener("change", event => {
  state.everywhere = event.target.checked;
  refresh();
});
byId("scope").addEventListener("change", event => {
  state.scope = event.target.value;
  refresh();
});
byId("clear").addEventListener("click", () => {
  byId("search").value = "";
  byId("scope").value = state.scope = "all";
  state.words = [];
  showOnly(data.datasets.keys());
});
byId("all-datasets").addEventListener("click", () => showOnly(data.datasets.keys()));
switches.addEventListener("click", event => {
  const button = event.target.closest("[data-dataset]");
  if (!button) return;
  const number = +button.dataset.dataset;
  if (event.shiftKey) {
    showOnly([number]);
    return;
  }
  if (!state.off.delete(number)) state.off.add(number);
  refresh();
});
tabStop(switches);
for (const list of document.querySelectorAll("header .rove")) tabStop(list);

// Where the bar has stuck, its switches are out of sight; they come back while one of them has the focus.
byId("to-switches").addEventListener("click", () => {
  switches.querySelector('[tabindex="0"]').focus({ preventScroll: true });
});

// What a link leads to begins below the bar, however many rows the bar has.
new ResizeObserver(() => {
  const stuck = getComputedStyle(bar).position === "sticky";
  const away = switches.offsetTop + switches.offsetHeight - GAP;
  const style = document.documentElement.style;
  style.setProperty("--away", `${away}px`);
  style.setProperty("--bar", `${stuck ? bar.offsetHeight - away : 0}px`);
}).observe(bar);
