// When was that, and how long is it until then?

const DAY_MS = 86_400_000;
const WARNED_FROM_DAYS = 14;

/**
 * Show a moment in the reader's own time and language.
 * @param {string | null} time RFC 3339
 * @param {string} otherwise for null
 */
export function timeOf(time, otherwise) {
  return time === null ? otherwise : new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/**
 * Say that a key expires soon: from 14 days before.
 * @param {string} expiresAt
 * @param {number} [now] milliseconds since 1970
 * @returns {string} empty while that is longer
 */
export function warningOf(expiresAt, now = Date.now()) {
  const left = Date.parse(expiresAt) - now;
  if (left <= 0 || left > WARNED_FROM_DAYS * DAY_MS) return "";
  if (left < 3_600_000) return "expires within the hour";
  if (left < DAY_MS) return `expires in ${Math.floor(left / 3_600_000)} h`;
  const days = Math.floor(left / DAY_MS);
  return `expires in ${days} ${days === 1 ? "day" : "days"}`;
}

/** @param {number} seconds */
export function lengthOf(seconds) {
  for (const [unit, length] of /** @type {const} */ ([["day", 86_400], ["hour", 3600], ["minute", 60]])) {
    if (seconds >= length && seconds % length === 0) return `${seconds / length} ${unit}${seconds === length ? "" : "s"}`;
  }
  return `${seconds} second${seconds === 1 ? "" : "s"}`;
}
