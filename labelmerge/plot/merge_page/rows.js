// Tables of which only the rows near the seen ones are built; the rest is two gaps, one above and one below.

import { element } from "./dom.js";
import { onJump, tabStop } from "./lists.js";
import { narrowed, state, when } from "./state.js";

const SLACK = 500; // pixels beyond the box's edges that are built
const CHUNK = 8; // rows that are built at a time
const FAR = 700; // pixels from the screen from which on nothing is built
const GUESS = 44; // pixels: a row's height before any is built

const all = [];
const byBox = new Map();
const watcher = new IntersectionObserver(
  entries => {
    for (const { target, isIntersecting } of entries) byBox.get(target).near(isIntersecting);
  },
  { rootMargin: `${FAR}px` },
);

class Rows {
  #box;
  #table;
  #body;
  #build;
  #above = element("tr", { class: "gap", "aria-hidden": "true" }, element("td", { colspan: 20 }));
  #below = element("tr", { class: "gap", "aria-hidden": "true" }, element("td", { colspan: 20 }));
  #items = [];
  #from = 0; // the rows that are built, from here …
  #to = 0; // … to before here
  #gaps = [0, 0]; // heights
  #height = GUESS;
  #near = false;

  constructor(box, build) {
    this.#box = box;
    this.#table = box.querySelector("table");
    this.#body = box.querySelector("tbody");
    this.#build = build;
    this.#body.append(this.#above, this.#below);
    box.addEventListener("scroll", () => this.#fill(), { passive: true });
    onJump(this.#table, end => this.show(end < 0 ? this.#items.length - 1 : 0, end < 0 ? 1 : 0));
  }

  get items() {
    return this.#items;
  }

  set(items) {
    this.#items = items;
    this.#table.setAttribute("aria-rowcount", items.length);
    this.#box.classList.toggle("none", !items.length);
    this.#box.dataset.none = narrowed() ? "None among the labels that are shown." : "None.";
    this.#clear(0);
    this.#box.scrollTop = 0;
    this.#fill();
  }

  near(is) {
    this.#near = is;
    this.#fill();
  }

  // Brings an item into the box: its row at the top (0), in the middle (0.5) or at the bottom (1).
  show(place, where = 0.5) {
    if (this.#items[place] === undefined) return;
    this.#near = true;
    this.#clear(place);
    this.#box.scrollTop = this.#gaps[0];
    this.#fill();
    const row = this.#body.rows[1 + place - this.#from];
    if (!row) return;
    const head = this.#table.tHead?.offsetHeight || 0;
    const room = this.#box.clientHeight - head - row.offsetHeight;
    this.#box.scrollTop = row.offsetTop - head - where * Math.max(0, room);
    this.#fill();
  }

  buildAll() {
    this.#clear(0);
    this.#grow(this.#items.length);
  }

  #clear(place) {
    while (this.#above.nextSibling !== this.#below) this.#above.nextSibling.remove();
    this.#from = this.#to = place;
    this.#setGaps(place * this.#height, (this.#items.length - place) * this.#height);
  }

  #setGaps(...heights) {
    this.#gaps = heights;
    [this.#above, this.#below].forEach((gap, which) => {
      gap.firstChild.style.height = `${heights[which]}px`;
    });
  }

  #row(place) {
    const row = this.#build(this.#items[place]);
    row.setAttribute("aria-rowindex", place + 1);
    return row;
  }

  #built() {
    return this.#below.offsetTop - this.#above.offsetTop - this.#gaps[0];
  }

  // More rows below; how many pixels they take.
  #grow(count) {
    const to = Math.min(this.#items.length, this.#to + count);
    const before = this.#built();
    const made = document.createDocumentFragment();
    for (let place = this.#to; place < to; place++) made.append(this.#row(place));
    this.#body.insertBefore(made, this.#below);
    this.#to = to;
    this.#setGaps(this.#gaps[0], (this.#items.length - to) * this.#height);
    return this.#built() - before;
  }

  // More rows above, where nothing that is seen may move.
  #growUp() {
    const from = Math.max(0, this.#from - CHUNK);
    const before = this.#built();
    const made = document.createDocumentFragment();
    for (let place = from; place < this.#from; place++) made.append(this.#row(place));
    this.#body.insertBefore(made, this.#above.nextSibling);
    const gap = from * this.#height;
    const { scrollTop } = this.#box; // before a smaller gap moves it
    const moved = this.#built() - before + gap - this.#gaps[0];
    this.#from = from;
    this.#setGaps(gap, this.#gaps[1]);
    if (Math.abs(moved) > 0.5) this.#box.scrollTop = scrollTop + moved;
  }

  // Rows that lie far outside go: above or below.
  #trim(above) {
    const far = above ? this.#box.scrollTop - 3 * SLACK : this.#box.scrollTop + this.#box.clientHeight + 3 * SLACK;
    const end = () => (above ? this.#above.nextSibling : this.#below.previousSibling);
    const isFar = row => (above ? row.offsetTop + row.offsetHeight < far : row.offsetTop > far);
    if (this.#to - this.#from < 2 * CHUNK || !isFar(end())) return;
    const gone = [];
    for (let row = end(); gone.length < this.#to - this.#from - CHUNK && isFar(row); ) {
      gone.push(row);
      row = above ? row.nextSibling : row.previousSibling;
    }
    const height = gone.reduce((sum, row) => sum + row.offsetHeight, 0);
    for (const row of gone) row.remove();
    if (above) {
      this.#from += gone.length;
      this.#setGaps(this.#gaps[0] + height, this.#gaps[1]);
    } else {
      this.#to -= gone.length;
      this.#setGaps(this.#gaps[0], this.#gaps[1] + height);
    }
  }

  #fill() {
    if (!this.#near || !this.#items.length) return;
    const view = () => [this.#box.scrollTop, this.#box.scrollTop + this.#box.clientHeight];
    const top = () => this.#above.offsetTop + this.#gaps[0];
    const [low, high] = view();
    if (this.#to > this.#from && (this.#below.offsetTop < low - SLACK || top() > high + SLACK)) {
      this.#clear(Math.min(this.#items.length - 1, Math.floor(low / this.#height)));
    }
    while (this.#to < this.#items.length && this.#below.offsetTop < view()[1] + SLACK) {
      const first = this.#to === this.#from;
      const count = first ? 3 * CHUNK : CHUNK;
      const grown = this.#grow(count);
      if (first && this.#to - this.#from >= CHUNK && grown > 0) this.#height = grown / (this.#to - this.#from);
      if (grown <= 0) break; // not laid out
    }
    while (this.#from > 0 && top() > view()[0] - SLACK) this.#growUp();
    this.#trim(true);
    this.#trim(false);
    tabStop(this.#table);
  }
}

// `build` makes an item's row; `choose` says which items are shown, and is asked again after each change of the filter.
export function rows(box, build, choose) {
  const made = new Rows(box, build);
  all.push(made);
  byBox.set(box, made);
  watcher.observe(box);
  when("filter", () => made.set(choose()));
  return made;
}

addEventListener("beforeprint", () => {
  for (const each of all) each.buildAll();
});
addEventListener("afterprint", () => {
  for (const each of all) each.set(each.items);
});
when("choice", () => {
  for (const old of document.querySelectorAll(".chosen")) old.classList.remove("chosen");
  if (state.chosen === null) return;
  for (const same of document.querySelectorAll(`[data-pick="${state.chosen}"]`)) same.classList.add("chosen");
});
