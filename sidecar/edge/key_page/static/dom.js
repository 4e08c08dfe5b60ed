// How is something shown? Everything that is shown goes through here, as text: there is no way to show HTML.

/** Also letters, marks and a symbol (U+2800, the empty Braille pattern) that leave nothing on the screen. */
const INVISIBLE = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]/gu;

/**
 * Make an element.
 * @param {string} tag
 * @param {Record<string, unknown>} [properties] handlers begin with "on", the others are attributes; null and false are left out
 * @param {...(Node | string | null)} children strings become text, never markup
 * @returns {HTMLElement}
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * Write what others chose so that nothing in it is invisible or turns the direction of what follows.
 * @param {string} text
 * @param {{lines?: boolean}} [how] `lines`: line breaks and tabs are shown as such
 */
export function visible(text, { lines = false } = {}) {
  return text.replace(INVISIBLE, (found) =>
    lines && (found === "\n" || found === "\t") ? found : `\u27e8U+${found.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`);
}

/**
 * Show something that others chose: made visible, and set apart from the text around it in direction, too.
 * @param {string} text
 */
export function quoted(text) {
  return el("bdi", {}, visible(text));
}

/** @param {string} id */
export function byId(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/** Replace the page's content. @param {...Node} children */
export function show(...children) {
  byId("main").replaceChildren(...children);
}

/** Tell those who listen rather than look. @param {string} text */
export function say(text) {
  byId("said").textContent = text;
}

/**
 * Show what went wrong, where it went wrong.
 * @param {string} text
 */
export function alertOf(text) {
  return el("p", { role: "alert", class: "problem" }, text);
}

/**
 * Open a dialog over the page, which then can't be reached until it is closed; it is removed when it closes.
 * @param {string} heading
 * @param {...Node} children
 * @returns {HTMLDialogElement}
 */
export function dialog(heading, ...children) {
  const title = el("h2", { id: "dialog-title", tabindex: "-1" }, heading);
  const box = /** @type {HTMLDialogElement} */ (el("dialog", { "aria-labelledby": "dialog-title" }, title, ...children));
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
  if (!box.querySelector("[autofocus]")) title.focus();
  return box;
}
