// What the map and the heat map share: layers, marks, the tooltip, dragging and zooming.

import { byId, data, labels } from "./data.js";

const outlines = data.datasets.map(({ shape }) => data.shapes[shape]);

export const fontOf = size => `${size}px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif`;

// The canvas's size in CSS pixels; its bitmap follows the screen's density.
function fit(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  return [context, width, height];
}

// What rarely changes is painted once; pointing and choosing draw over it.
export function layered(canvas) {
  const below = document.createElement("canvas");
  return (stale, paint) => {
    const [context, width, height] = fit(canvas);
    if (stale || below.width !== canvas.width || below.height !== canvas.height) {
      below.width = canvas.width;
      below.height = canvas.height;
      const lower = below.getContext("2d");
      lower.setTransform(context.getTransform());
      if (width && height) paint(lower, width, height);
    }
    context.save();
    context.resetTransform();
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (below.width && below.height) context.drawImage(below, 0, 0);
    context.restore();
    return [context, width, height];
  };
}

export function drawMark(context, row, x, y, radius) {
  context.beginPath();
  for (const [dx, dy] of outlines[labels[row].dataset]) context.lineTo(x + radius * dx, y - radius * dy);
  context.closePath();
  context.fill();
  context.stroke();
}

export function tip(event, lines) {
  const box = byId("tip");
  box.hidden = !lines;
  if (!lines) return;
  box.textContent = lines;
  const left = Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8);
  const below = event.clientY + 18;
  const top = below + box.offsetHeight > innerHeight ? event.clientY - box.offsetHeight - 10 : below;
  box.style.cssText = `left:${left}px;top:${top}px`;
}

export function dragging(canvas, { move, hover, click, wheel }) {
  let last = null;
  let far = 0;
  const at = event => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", event => {
    last = at(event);
    far = 0;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", event => {
    const [x, y] = at(event);
    if (last) {
      far += Math.abs(x - last[0]) + Math.abs(y - last[1]);
      move(x - last[0], y - last[1]);
      last = [x, y];
    } else hover(event, x, y);
  });
  canvas.addEventListener("pointerup", event => {
    if (last && far < 4) click(...at(event));
    last = null;
  });
  canvas.addEventListener("pointercancel", () => {
    last = null;
  });
  canvas.addEventListener("pointerleave", event => {
    if (!last) hover(event, null, null);
  });
  canvas.addEventListener(
    "wheel",
    event => {
      if (document.activeElement !== canvas && !event.ctrlKey) return; // a page that scrolls past must not zoom
      event.preventDefault();
      wheel(Math.exp(-event.deltaY / 400), ...at(event));
    },
    { passive: false },
  );
}

// Arrow keys move, + and − zoom, 0 shows all. `move` and `enter` say whether they had a use for the key.
export function pictureKeys(canvas, { move, zoom, factor, enter = () => false }) {
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const zooms = { "+": factor, "=": factor, "-": 1 / factor, 0: 0 };
  canvas.addEventListener("keydown", event => {
    const { key } = event;
    let used = key in zooms;
    if (used) zoom(zooms[key]);
    else if (key in arrows) used = move(...arrows[key]);
    else if (key === "Enter") used = enter();
    if (used) event.preventDefault();
  });
}
