// Lists in which the arrow keys go from item to item, with one stop for the Tab key.

const itemsOf = list => [...list.querySelectorAll("[data-pick]")];
const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, Home: -Infinity, End: Infinity };

export function tabStop(list) {
  const all = itemsOf(list);
  const stop =
    all.find(item => item.tabIndex === 0 && !item.closest("[hidden]")) || all.find(item => !item.closest("[hidden]"));
  for (const item of all) item.tabIndex = item === stop ? 0 : -1;
}

export const tabStops = within => within.querySelectorAll(".rove").forEach(tabStop);

// Moves the focus as the key says; false where the list has no use for the key.
export function moveFocus(list, item, key) {
  const step = steps[key];
  if (step === undefined) return false;
  const all = itemsOf(list).filter(other => other.offsetParent !== null);
  const next = all[Math.max(0, Math.min(all.length - 1, all.indexOf(item) + step))];
  item.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
  return true;
}
