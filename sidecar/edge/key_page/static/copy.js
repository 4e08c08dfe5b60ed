// Putting text where it can be pasted.

import { el, say } from "./dom.js";

/**
 * Return a button that copies.
 * @param {string} text
 * @param {string} what said of it: "Copy" and this
 */
export function copyButton(text, what) {
  const button = el("button", { type: "button", class: "copy", onclick: copy }, `Copy ${what}`);
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      say(`Copied ${what}`);
    } catch {
      button.textContent = "Select it and copy it yourself: the browser does not allow this page to";
      say("Not copied");
    }
  }
  return button;
}
