// A key that was just made: the one moment in which it can be seen.

import { copyButton } from "./copy.js";
import { timeOf } from "./dates.js";
import { dialog, el, quoted } from "./dom.js";
import { snippetsFor } from "./snippets.js";

/**
 * Show a new key until the person says that it is kept. Then it is nowhere in the page any more.
 * @param {{key: string, name: string, expiresAt: string}} made
 * @param {string | null} url where keys are taken
 * @param {string} note said of what becomes of the key that it replaces
 * @param {() => void} done
 */
export function showNewKey(made, url, note, done) {
  const box = dialog(
    "Save this key now",
    el("p", {}, "It is shown this once, and nobody can show it again. Who has it can act for your account."),
    note ? el("p", {}, note) : null,
    el("p", {}, "Name: ", quoted(made.name), el("br"), `Expires: ${timeOf(made.expiresAt, "never")}`),
    el("pre", { class: "key", tabindex: "0", "aria-label": "The new key" }, el("code", { id: "new-key" }, made.key)),
    el("p", {}, copyButton(made.key, "the key")),
    ...(url === null ? [] : uses(url, made.key)),
    el("p", { class: "actions" }, el("button", { type: "button", class: "primary", id: "key-kept", onclick: () => box.close() }, "I have saved it")),
  );
  box.setAttribute("closedby", "none");  // Escape is pressed too easily
  box.addEventListener("cancel", (event) => event.preventDefault());  // for browsers that do not know that attribute
  box.addEventListener("close", done);
}

function uses(url, key) {
  return [
    el("h3", {}, "Use it"),
    ...snippetsFor(url, key).map(({ title, about, text }) =>
      el(
        "details",
        { "data-snippet": title },
        el("summary", {}, title),
        el("p", { class: "hint" }, about),
        el("pre", { tabindex: "0", "aria-label": `Example for ${title}` }, el("code", {}, text)),
        el("p", {}, copyButton(text, `the example for ${title}`)),
      ),
    ),
  ];
}
