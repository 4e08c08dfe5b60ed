// The form that makes a key.

import { alertOf, dialog, el, quoted } from "./dom.js";
import { wordsOf } from "./problem.js";
import { FULL, SCOPES } from "./scopes.js";

/**
 * @param {import("./session.js").Session} session
 * @param {import("./settings.js").Settings} settings
 * @param {(made: any) => void} made called with the new key
 */
export function createForm(session, settings, made) {
  const name = field("name", { type: "text", maxlength: 100, required: true, autocomplete: "off", "aria-describedby": "name-about" });
  const days = field("days", { type: "number", min: 1, max: settings.maxExpiryDays, required: true, value: settings.defaultExpiryDays, inputmode: "numeric" });
  const boxes = SCOPES.map(([scope]) => field(`scope-${scope}`, { type: "checkbox", value: scope, "aria-describedby": `about-${scope}`, checked: settings.defaultScopes.includes(scope) && scope !== FULL }));
  const problem = el("div");
  const form = /** @type {HTMLFormElement} */ (
    el(
      "form",
      { id: "create", onsubmit: submit, "aria-labelledby": "create-title" },
      el("h2", { id: "create-title" }, "New key"),
      el("label", { for: "name" }, "Name"),
      el("p", { id: "name-about", class: "hint" }, "Where it will be used, so that you know later which one to revoke."),
      name,
      el("fieldset", {}, el("legend", {}, "What it may do"), ...boxes.map((box, index) => choice(box, ...SCOPES[index]))),
      el("label", { for: "days" }, "Days until it expires"),
      days,
      problem,
      el("p", {}, el("button", { type: "submit", class: "primary" }, "Create key")),
    )
  );

  /** @param {Event} event */
  function submit(event) {
    event.preventDefault();
    const scopes = boxes.filter((box) => box.checked).map((box) => box.value);
    if (!scopes.length) {
      problem.replaceChildren(alertOf("Choose at least one thing that the key may do."));
      return;
    }
    if (scopes.includes(FULL)) confirmFull(name.value, () => create(scopes));
    else create(scopes);
  }

  async function create(scopes) {
    problem.replaceChildren();
    form.inert = true;
    try {
      const key = await session.ask("POST", "/api/api-keys", { name: name.value, scopes, expiresInDays: Number(days.value) });
      form.reset();
      made(key);
    } catch (error) {
      problem.replaceChildren(alertOf(wordsOf(error)));
    } finally {
      form.inert = false;
    }
  }

  return form;
}

/** The second step of a key that may do everything. */
function confirmFull(name, confirmed) {
  const box = dialog(
    "A key that can do everything?",
    el("p", {}, "Whoever holds the key ", quoted(name), " can change and delete everything that you can, and nobody asks you first. A key that only reads is enough for most uses."),
    el(
      "p",
      { class: "actions" },
      el("button", { type: "button", autofocus: true, onclick: () => box.close() }, "Back"),
      el("button", { type: "button", class: "danger", id: "confirm-full", onclick: () => { box.close(); confirmed(); } }, "Create it with full access"),
    ),
  );
}

/** @returns {HTMLInputElement} */
function field(id, properties) {
  return /** @type {HTMLInputElement} */ (el("input", { id, ...properties }));
}

function choice(box, scope, sentence) {
  return el("div", { class: "choice" }, box, el("div", {}, el("label", { for: box.id }, el("code", {}, scope)), el("p", { id: `about-${scope}`, class: "hint" }, sentence)));
}
