// How were the keys used in the last 7 days, and what of it is unusual?

import { timeOf } from "./dates.js";
import { el, quoted } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 40;
const STEP = 16;
const BAR = 12;
/** From the bottom of a bar to its top; the names are classes of the style. */
const PARTS = /** @type {const} */ (["reads", "writes", "refused"]);

/**
 * @typedef {{start: string, requests: number, refused: number, writes: number}} Day
 * @typedef {{kind: string, since: string, reason: string}} Unusual
 * @typedef {{days: Day[], unusual: Unusual[]}} Activity
 */

/**
 * Read how all keys are used, a page at a time.
 * @param {import("./session.js").Session} session
 * @param {number} pages how many there are
 * @returns {Promise<{ofKeys: Map<string, Activity>, unusual: Unusual[]}>}
 */
export async function readActivity(session, pages) {
  const ofKeys = new Map();
  let unusual = [];
  let cursor = null;
  for (let page = 0; page < pages; page += 1) {
    const after = cursor === null ? "" : `&cursor=${encodeURIComponent(cursor)}`;
    const answer = await session.ask("GET", `/api/api-keys/activity?limit=100${after}`);
    for (const key of answer.keys) ofKeys.set(key.id, key);
    unusual = answer.unusual;
    cursor = answer.nextCursor;
    if (cursor === null) break;
  }
  return { ofKeys, unusual };
}

/**
 * Draw 7 days of use: reads, writes and refusals of each day on top of each other; in words for who does not see it.
 * @param {Day[]} days
 */
export function chartOf(days) {
  const sum = (name) => days.reduce((total, day) => total + day[name], 0);
  const words = `${sum("requests")} requests, of these ${sum("writes")} writes, and ${sum("refused")} refused`;
  if (sum("requests") + sum("refused") === 0) return el("p", { class: "hint usage" }, "No use in the last 7 days.");
  const most = Math.max(...days.map((day) => day.requests + day.refused));
  const daily = days.map((day) => `${dayOf(day)}: ${day.requests} requests, ${day.writes} writes, ${day.refused} refused`);
  const picture = svg("svg", { viewBox: `0 0 ${STEP * days.length} ${HEIGHT}`, role: "img", "aria-label": `The last 7 days. ${daily.join(". ")}.` });
  picture.append(...days.flatMap((day, index) => bar(day, index, most)));
  return el("figure", { class: "usage" }, picture, el("figcaption", { class: "hint" }, `7 days: ${words}`));
}

/** Say what is unusual, in words. @param {Unusual[]} found */
export function warningsOf(found) {
  if (!found.length) return null;
  return el("ul", { class: "unusual" }, ...found.map(({ reason, since }) => el("li", {}, el("strong", {}, "Unusual: "), quoted(reason), ` (since ${timeOf(since, "")})`)));
}

function bar(day, index, most) {
  const sizes = { reads: day.requests - day.writes, writes: day.writes, refused: day.refused };
  let bottom = HEIGHT;
  return PARTS.filter((part) => sizes[part] > 0).map((part) => {
    const height = Math.max(1, (sizes[part] / most) * HEIGHT);
    bottom -= height;
    return svg("rect", { class: part, x: index * STEP + (STEP - BAR) / 2, y: bottom.toFixed(2), width: BAR, height: height.toFixed(2) });
  });
}

/** The days are UTC. */
function dayOf(day) {
  return new Date(day.start).toLocaleDateString(undefined, { timeZone: "UTC", weekday: "long", day: "numeric", month: "short" });
}

function svg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}
