// What does this page have to know? The sidecar says it; nothing of it is secret.

import { Problem } from "./problem.js";

/**
 * @typedef {object} Endpoints
 * @property {string} authorization
 * @property {string} token
 * @property {string | null} revocation
 * @property {string | null} endSession
 * @property {boolean} namesItself
 */
/**
 * @typedef {object} Settings
 * @property {string} publicUrl
 * @property {string | null} issuer
 * @property {string | null} clientId
 * @property {string} scopes
 * @property {string | null} resource
 * @property {string | null} keyUrl
 * @property {string[]} defaultScopes
 * @property {number} defaultExpiryDays
 * @property {number} maxExpiryDays
 * @property {number} rotationGraceSeconds
 * @property {Endpoints | null} endpoints
 */

/** @returns {Promise<Settings>} */
export async function readSettings() {
  let answer;
  try {
    answer = await fetch("/keys/sign-in.json", { credentials: "omit", cache: "no-store" });
  } catch {
    throw new Problem("The service can't be reached. Check your connection and load the page again.");
  }
  if (!answer.ok) throw new Problem(`The service answered ${answer.status}. Wait a minute and load the page again.`);
  return answer.json();
}
