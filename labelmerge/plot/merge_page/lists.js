// Lists in which the arrow keys go from item to item, with one stop for the Tab key.

const ITEMS = "[data-pick], .switch, .plain, .tiles a, summary";
const itemsOf = list => [...list.querySelectorAll(ITEMS)].filter(item => item.closest(".rove") === list);
const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
const ends = { Home: 0, End: -1 };
const jumps = new WeakMap(); // list → what shows its first or last row

// Say how a list, of which only a part is built, comes to its ends.
export const onJump = (list, jump) => jumps.set(list, jump);

export const itemOf = element => element.closest?.(ITEMS);

export function tabStop(list) {
  const all = itemsOf(list);
  const shown = all.filter(item => !item.closest("[hidden]"));
  const stop = shown.find(item => item === document.activeElement) || shown.find(item => item.tabIndex === 0);
  for (const item of all) item.tabIndex = item === (stop || shown[0]) ? 0 : -1;
}

export const tabStops = within => within.querySelectorAll(".rove").forEach(tabStop);

// Moves the focus as the key says; false where the list has no use for the key.
export function moveFocus(list, item, key) {
  if (!(key in steps || key in ends)) return false;
  if (key in ends) jumps.get(list)?.(ends[key]);
  const all = itemsOf(list).filter(other => other.offsetParent !== null);
  const place = Math.max(0, Math.min(all.length - 1, all.indexOf(item) + steps[key]));
  const next = key in ends ? all.at(ends[key]) : all[place];
  for (const other of all) other.tabIndex = other === next ? 0 : -1;
  next.focus({ preventScroll: next.matches(".switch") }); // which stand in the bar, wherever the page is
  return true;
}
