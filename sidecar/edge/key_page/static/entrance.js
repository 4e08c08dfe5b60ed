// From the closed door to a session and back: signing in, pasting a token, signing out.

import { alertOf, byId, el, quoted, say, show } from "./dom.js";
import { wordsOf } from "./problem.js";
import { Session } from "./session.js";
import { readSettings } from "./settings.js";
import { begin, comeBack, finish, isCallback } from "./sign_in.js";

// A page that the browser kept while the person was elsewhere would still hold the token.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

/** @typedef {(session: Session, settings: import("./settings.js").Settings) => void} Enter */

/**
 * Open the page: to who has just come back from the issuer, or with a way to sign in.
 * @param {string} purpose what the person signs in for, as the end of a sentence
 * @param {Enter} enter called with the session
 */
export async function open(purpose, enter) {
  let settings;
  try {
    settings = await readSettings();
  } catch (error) {
    if (isCallback()) comeBack();
    show(alertOf(wordsOf(error)));
    return;
  }
  if (!isCallback()) {
    showDoor(settings, purpose, enter);
    return;
  }
  try {
    say("Signing in");
    admit(settings, purpose, enter, await finish(settings));
  } catch (error) {
    showDoor(settings, purpose, enter, wordsOf(error));
  }
}

function admit(settings, purpose, enter, signed) {
  const session = new Session(settings, signed, (why) => leave(settings, purpose, enter, why));
  const out = async () => {
    await session.signOut();
    leave(settings, purpose, enter, "", "You are signed out here.");
  };
  byId("who").replaceChildren(
    session.name === null ? "Signed in " : el("span", {}, "Signed in as ", quoted(session.name), " "),
    el("button", { type: "button", id: "sign-out", onclick: out }, "Sign out"),
  );
  enter(session, settings);
}

function leave(settings, purpose, enter, problem, notice = "") {
  byId("who").replaceChildren();
  for (const box of document.querySelectorAll("dialog")) box.remove();
  showDoor(settings, purpose, enter, problem, notice);
}

function showDoor(settings, purpose, enter, problem = "", notice = "") {
  say(notice);
  show(
    el(
      "section",
      { "aria-labelledby": "door" },
      el("h2", { id: "door" }, "Sign in"),
      problem ? alertOf(problem) : null,
      notice ? el("p", {}, notice, " ", endSessionLink(settings)) : null,
      ...waysIn(settings, purpose, (signed) => admit(settings, purpose, enter, signed)),
    ),
  );
  byId("main").focus();
}

function waysIn(settings, purpose, admitted) {
  if (settings.clientId === null) {
    return [el("p", {}, "Nobody can sign in here yet: no client is configured (", el("code", {}, "key_page.client_id"), "). Whoever has an access token for this service can paste it."), pasteForm(admitted)];
  }
  if (location.origin !== new URL(settings.publicUrl).origin) {
    const address = settings.publicUrl + location.pathname;
    return [el("p", {}, "People sign in at ", el("a", { href: address }, address), "."), pastePanel(admitted)];
  }
  if (!globalThis.isSecureContext) {
    return [el("p", {}, "This page has to be opened by https: browsers sign nobody in without it."), pastePanel(admitted)];
  }
  const problem = el("div");
  const go = async () => {
    try {
      await begin(settings);
    } catch (error) {
      problem.replaceChildren(alertOf(wordsOf(error)));
    }
  };
  if (settings.endpoints === null) {
    return [
      alertOf("Your issuer can't be reached from here just now, so nobody can sign in."),
      el("p", {}, el("button", { type: "button", onclick: () => location.reload() }, "Try again")),
      pastePanel(admitted),
    ];
  }
  return [
    el("p", {}, `Sign in at `, el("strong", {}, new URL(settings.issuer).host), ` ${purpose}.`),
    el("p", {}, el("button", { type: "button", class: "primary", id: "sign-in", onclick: go }, "Sign in")),
    problem,
    pastePanel(admitted),
  ];
}

function pastePanel(admitted) {
  return el("details", {}, el("summary", {}, "Use an access token instead"), pasteForm(admitted));
}

function pasteForm(admitted) {
  const field = /** @type {HTMLInputElement} */ (
    el("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "token-about" })
  );
  const submit = (event) => {
    event.preventDefault();
    const token = field.value.trim();
    field.value = "";
    if (token) admitted({ token, name: null, revocation: null });  // it may be any issuer's: no other may learn it
  };
  return el(
    "form",
    { onsubmit: submit },
    el("label", { for: "token" }, "Access token"),
    el("p", { id: "token-about", class: "hint" }, "It stays in the memory of this tab, and is gone when you sign out, load the page again or close it."),
    field,
    el("p", {}, el("button", { type: "submit" }, "Use this token")),
  );
}

/** Signing out here does not sign out at the issuer, where the next person at this machine could go on. */
function endSessionLink(settings) {
  const address = settings.endpoints?.endSession;
  if (!address) return null;
  const url = new URL(address);
  url.searchParams.set("client_id", settings.clientId);
  url.searchParams.set("post_logout_redirect_uri", `${settings.publicUrl}/keys`);
  return el("a", { href: url.href, id: "end-session" }, `Sign out at ${url.host}, too`);
}
