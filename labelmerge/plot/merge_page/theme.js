// Light, dark or as the system has it, and the colours that the pictures take from the style sheet.

import { byId } from "./data.js";
import { tell } from "./state.js";

const root = document.documentElement;
const themes = ["auto", "light", "dark"];
const darkSystem = matchMedia("(prefers-color-scheme: dark)");

export const inks = { ink: "", paper: "", soft: "", chosen: "" };
export const dark = () => (root.dataset.theme || (darkSystem.matches ? "dark" : "light")) === "dark";

export function repaint() {
  const style = getComputedStyle(root);
  for (const [ink, name] of Object.entries({ ink: "--ink", paper: "--card", soft: "--soft", chosen: "--chosen" })) {
    inks[ink] = style.getPropertyValue(name).trim();
  }
  tell("colours");
}

byId("theme").addEventListener("click", () => {
  const next = themes[(themes.indexOf(root.dataset.theme || "auto") + 1) % themes.length];
  if (next === "auto") delete root.dataset.theme;
  else root.dataset.theme = next;
  byId("theme").textContent = `◐ ${next}`;
  byId("theme").setAttribute("aria-label", `Colour scheme: ${next === "auto" ? "as the system" : next}`);
  repaint();
});
darkSystem.addEventListener("change", () => repaint());
