// The keys of an account, the newest first.

import { lengthOf, timeOf, warningOf } from "./dates.js";
import { alertOf, dialog, el, quoted, visible } from "./dom.js";
import { wordsOf } from "./problem.js";
import { chartOf, warningsOf } from "./usage.js";

const GRACES_S = [0, 3600, 86_400, 604_800];
const PAGE = 100;
const MOST_PAGES = 50;

/**
 * @typedef {object} Key
 * @property {string} id
 * @property {string} name
 * @property {string} prefix
 * @property {string[]} scopes
 * @property {"active" | "expired" | "revoked"} status
 * @property {string} createdAt
 * @property {string} expiresAt
 * @property {string | null} lastUsedAt
 * @property {string | null} replacedBy
 */

/**
 * Read all keys, a page at a time.
 * @param {import("./session.js").Session} session
 * @returns {Promise<{keys: Key[], isWhole: boolean}>}
 */
export async function readKeys(session) {
  /** @type {Key[]} */
  const keys = [];
  let cursor = null;
  for (let page = 0; page < MOST_PAGES; page += 1) {
    const after = cursor === null ? "" : `&cursor=${encodeURIComponent(cursor)}`;
    const answer = await session.ask("GET", `/api/api-keys?limit=${PAGE}${after}`);
    keys.push(...answer.keys);
    cursor = answer.nextCursor;
    if (cursor === null) return { keys, isWhole: true };
  }
  return { keys, isWhole: false };
}

/**
 * Show keys: those that work, and all on request.
 * @param {{keys: Key[], isWhole: boolean, activity: {ofKeys: Map<string, import("./usage.js").Activity>, unusual: import("./usage.js").Unusual[]} | null}} read
 * @param {{showAll: boolean, toggle: (all: boolean) => void, rotate: (key: Key) => void, revoke: (key: Key) => void, reload: () => void}} acts
 */
export function keyList({ keys, isWhole, activity }, acts) {
  const active = keys.filter((key) => key.status === "active");
  const shown = acts.showAll ? keys : active;
  const all = el("input", { type: "checkbox", id: "show-all", checked: acts.showAll, onchange: (event) => acts.toggle(event.target.checked) });
  return el(
    "section",
    { "aria-labelledby": "list-title" },
    el("h2", { id: "list-title", tabindex: "-1" }, `Your keys (${active.length} active)`),
    el(
      "p",
      { class: "actions" },
      el("span", { class: "choice" }, all, el("label", { for: "show-all" }, `Show the ${keys.length - active.length} expired and revoked, too`)),
      el("button", { type: "button", id: "reload", onclick: acts.reload }, "Refresh"),
    ),
    activity === null ? el("p", { id: "no-activity" }, "How the keys are used can't be shown just now.") : warningsOf(activity.unusual),
    isWhole ? null : el("p", {}, `Only the newest ${keys.length} keys are shown.`),
    shown.length ? el("ul", { class: "keys", id: "keys" }, ...shown.map((key) => row(key, activity?.ofKeys.get(key.id) ?? null, acts))) : el("p", { id: "no-keys" }, "You have no keys yet. Make the first one above."),
  );
}

/**
 * @param {Key} key
 * @param {import("./usage.js").Activity | null} activity
 */
function row(key, activity, acts) {
  const warning = key.status === "active" ? warningOf(key.expiresAt) : "";
  const name = visible(key.name);
  return el(
    "li",
    { class: key.status, "data-id": key.id },
    el("h3", {}, quoted(key.name), " ", el("span", { class: `status ${key.status}` }, key.status), warning ? el("span", { class: "status soon" }, warning) : null),
    el(
      "dl",
      {},
      ...fact("Begins with", el("code", {}, key.prefix)),
      ...fact("May", el("span", {}, ...key.scopes.flatMap((scope, index) => [index ? ", " : "", el("code", {}, scope)]))),
      ...fact("Created", timeOf(key.createdAt, "")),
      ...fact("Expires", timeOf(key.expiresAt, "never")),
      ...fact("Last used", el("span", { class: "last-used" }, timeOf(key.lastUsedAt, "never"))),
      ...(key.replacedBy === null ? [] : fact("Replaced by", el("code", {}, key.replacedBy))),
    ),
    activity === null ? null : warningsOf(activity.unusual),
    activity === null ? null : chartOf(activity.days),
    key.status === "active"
      ? el(
          "p",
          { class: "actions" },
          key.replacedBy === null ? el("button", { type: "button", "aria-label": `Rotate ${name}`, onclick: () => acts.rotate(key) }, "Rotate") : null,
          el("button", { type: "button", class: "danger", "aria-label": `Revoke ${name}`, onclick: () => acts.revoke(key) }, "Revoke"),
        )
      : null,
  );
}

function fact(term, value) {
  return [el("div", {}, el("dt", {}, term), el("dd", {}, value))];
}

/**
 * Ask how long the old key shall still work, and rotate.
 * @param {Key} key
 * @param {number} grace_s what is proposed
 * @param {(seconds: number) => Promise<void>} rotate
 */
export function askToRotate(key, grace_s, rotate) {
  const lengths = [...new Set([...GRACES_S, grace_s])].sort((a, b) => a - b);
  const select = /** @type {HTMLSelectElement} */ (
    el("select", { id: "grace", autofocus: true }, ...lengths.map((length) => el("option", { value: length, selected: length === grace_s }, length ? lengthOf(length) : "not at all: it stops now")))
  );
  ask(
    "Replace this key?",
    [
      el("p", {}, "A new key with the same name and rights takes the place of ", quoted(key.name), " (", el("code", {}, key.prefix), "…)."),
      el("label", { for: "grace" }, "The old one still works for"),
      select,
    ],
    "Rotate",
    "primary",
    () => rotate(Number(select.value)),
  );
}

/**
 * @param {Key} key
 * @param {() => Promise<void>} revoke
 */
export function askToRevoke(key, revoke) {
  ask(
    "Revoke this key?",
    [el("p", {}, "The key ", quoted(key.name), " (", el("code", {}, key.prefix), "…) stops at once, for good. Whoever uses it is refused from the next request on.")],
    "Revoke it",
    "danger",
    revoke,
  );
}

function ask(heading, about, word, kind, act) {
  const problem = el("div");
  const yes = /** @type {HTMLButtonElement} */ (el("button", { type: "button", class: kind, "data-yes": true, onclick: go }, word));
  const box = dialog(heading, ...about, problem, el("p", { class: "actions" }, el("button", { type: "button", onclick: () => box.close() }, "Cancel"), yes));
  async function go() {
    yes.disabled = true;
    try {
      await act();
      box.close();
    } catch (error) {
      yes.disabled = false;
      problem.replaceChildren(alertOf(wordsOf(error)));
    }
  }
}
