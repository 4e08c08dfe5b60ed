// The page at /keys: sign in, then make, see, rotate and revoke keys.

import { createForm } from "./create_key.js";
import { lengthOf } from "./dates.js";
import { alertOf, byId, el, say, show } from "./dom.js";
import { open } from "./entrance.js";
import { askToRevoke, askToRotate, keyList, readKeys } from "./key_list.js";
import { showNewKey } from "./new_key.js";
import { wordsOf } from "./problem.js";
import { readActivity } from "./usage.js";

/**
 * @param {import("./session.js").Session} session
 * @param {import("./settings.js").Settings} settings
 */
function enter(session, settings) {
  const list = el("div", { id: "list" });
  let showAll = false;
  let read = { keys: [], isWhole: true, activity: null };

  async function refresh() {
    list.setAttribute("aria-busy", "true");
    try {
      const found = await readKeys(session);
      // Without it the keys can still be revoked.
      const activity = await readActivity(session, Math.ceil(found.keys.length / 100) || 1).catch(() => null);
      read = { ...found, activity };
      if (!list.isConnected) return;
      draw();
      say(`${read.keys.length} keys`);
    } catch (error) {
      if (list.isConnected) list.replaceChildren(alertOf(wordsOf(error)), el("p", {}, el("button", { type: "button", onclick: refresh }, "Try again")));
    } finally {
      list.setAttribute("aria-busy", "false");
    }
  }

  function draw() {
    list.replaceChildren(keyList(read, { showAll, toggle, rotate, revoke, reload: refresh }));
  }

  function toggle(all) {
    showAll = all;
    draw();
    byId("show-all").focus();
  }

  async function shown(made, note) {
    const refreshed = refresh();
    showNewKey(made, settings.keyUrl, note, async () => {
      await refreshed;
      byId("list-title")?.focus();
    });
  }

  function rotate(key) {
    askToRotate(key, settings.rotationGraceSeconds, async (graceSeconds) => {
      const made = await session.ask("POST", `/api/api-keys/${key.id}/rotate`, { graceSeconds });
      shown(made, graceSeconds ? `The old key still works for ${lengthOf(graceSeconds)}.` : "The old key has stopped.");
    });
  }

  function revoke(key) {
    askToRevoke(key, async () => {
      await session.ask("DELETE", `/api/api-keys/${key.id}`);
      await refresh();
      say("Revoked");
      byId("list-title")?.focus();
    });
  }

  show(createForm(session, settings, (made) => shown(made, "")), list);
  refresh();
}

open("to see and make your API keys", enter);
