// The page at /approvals/{id}: what somebody's program wants to do, and the person's word on it.

import { timeOf } from "./dates.js";
import { alertOf, byId, el, quoted, say, show, visible } from "./dom.js";
import { open } from "./entrance.js";
import { Problem, wordsOf } from "./problem.js";

const STATES = {
  waiting: "It waits for your decision.",
  approved: "It is approved: the same call goes through once, when the program makes it again.",
  declined: "It is declined: nothing is done.",
  withdrawn: "The program has given up. There is nothing to decide.",
  spent: "It was approved, and the call has been made.",
  expired: "It was not decided in time. Nothing is done.",
};

/** @param {import("./session.js").Session} session */
function enter(session) {
  if (!location.pathname.startsWith("/approvals/")) {
    location.replace("/keys");  // which call it was about is not known any more
    return;
  }
  const address = `/api${location.pathname}`;

  async function refresh(problem = "") {
    try {
      draw(await session.ask("GET", address), problem);
    } catch (error) {
      if (error instanceof Problem && error.status === 401) return;
      const gone = error instanceof Problem && error.status === 404;
      show(
        alertOf(gone ? "There is no such call for your account, or it was forgotten because its time is over." : wordsOf(error)),
        el("p", {}, el("button", { type: "button", onclick: () => refresh() }, "Look again")),
      );
    }
  }

  async function decide(word) {
    try {
      draw(await session.ask("POST", `${address}/${word}`, {}), "");
    } catch (error) {
      if (error instanceof Problem && error.status === 401) return;
      await refresh(wordsOf(error));
    }
  }

  function draw(approval, problem) {
    const isOpen = approval.state === "waiting";
    show(
      el(
        "section",
        { "aria-labelledby": "approval-title" },
        el("h2", { id: "approval-title", tabindex: "-1" }, "A program wants to call ", el("code", {}, quoted(approval.tool))),
        problem ? alertOf(problem) : null,
        el("p", { id: "state", "data-state": approval.state }, STATES[approval.state] ?? approval.state),
        el(
          "dl",
          {},
          fact("Asked by", caller(approval.caller)),
          fact("For the account", quoted(approval.account)),
          fact("Asked at", timeOf(approval.createdAt, "")),
          fact("To be decided before", timeOf(approval.expiresAt, "")),
          approval.decidedBy === null ? null : fact("Decided by", decider(approval.decidedBy)),
        ),
        el("h3", {}, "With these arguments"),
        ...argumentsOf(approval),
        ...besidesOf(approval),
        isOpen ? buttons(decide) : null,
      ),
    );
    byId("approval-title").focus();
    say(STATES[approval.state] ?? "");
  }

  refresh();
}

/** All of them stand above the buttons, and what is missing is told last: nobody comes to a yes without passing it. */
function argumentsOf({ arguments: text, argumentsShown, argumentsCut }) {
  if (text === null) return [el("p", {}, "None.")];
  return [
    argumentsShown === null ? alertOf("They can't be read as JSON, and are shown as they were sent: look to the very end.") : null,
    el("p", { class: "hint" }, "The program chose them, not this service: believe nothing they say of it. Lines and spaces between them are ours; what is invisible is written out."),
    el("pre", { id: "arguments", "aria-label": "Arguments" }, el("code", { dir: "ltr" }, visible(argumentsShown ?? text, { lines: true }))),
    argumentsCut ? alertOf("They are longer than what is shown: the end is missing here. Approve only if you know what it is.") : null,
  ].filter((part) => part !== null);
}

/** What else the server sees of the call: parts of the query, headers, further parameters. */
function besidesOf({ besides }) {
  if (besides === null) return [];
  return [
    el("h3", {}, "And besides"),
    el("pre", { id: "besides", "aria-label": "Besides the arguments" }, el("code", { dir: "ltr" }, visible(besides, { lines: true }))),
  ];
}

function caller({ credential, subject, clientId }) {
  if (credential === "api_key") return el("span", {}, "the API key ", quoted(subject));
  return el("span", {}, quoted(subject), clientId === null ? ", by a client without a name" : ", by the client ", clientId === null ? "" : quoted(clientId));
}

/** Nobody's name stands alone: it may be anything. */
function decider(by) {
  const name = by.startsWith("subject:") ? by.slice("subject:".length) : null;
  return el("span", { id: "decided-by" }, ...(name === null ? ["an operator, by command"] : ["somebody who signed in as ", quoted(name)]));
}

function fact(term, value) {
  return el("div", {}, el("dt", {}, term), el("dd", {}, value));
}

function buttons(decide) {
  const actions = el(
    "p",
    { class: "actions" },
    el("button", { type: "button", id: "decline", onclick: () => act("decline") }, "Decline"),
    el("button", { type: "button", id: "approve", class: "danger", onclick: () => act("approve") }, "Approve this one call"),
  );
  function act(word) {
    actions.inert = true;
    decide(word);
  }
  return actions;
}

open("to decide what a program may do for your account", enter);
