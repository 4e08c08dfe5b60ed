// Signing in at the issuer: authorisation code with PKCE, as a public client (RFC 9700 section 2.1.1).
// What is needed between leaving and coming back is in sessionStorage, and erased before anything else is done.

import { challengeOf, claimsOf, random } from "./pkce.js";
import { Problem } from "./problem.js";

const ENTRY = "sidecar.sign-in";
const RETURN_TO = /^\/(keys|approvals\/[0-9a-f]{32})$/;
const CLOCK_SKEW_S = 300;

/**
 * @typedef {object} Signed
 * @property {string} token the access token; it is kept in memory and nowhere else
 * @property {string | null} name of the person, as the issuer says it
 * @property {string | null} revocation where the issuer that gave the token revokes it; null where it can't, or is not known
 */

/** @returns {boolean} whether this is what the issuer sends people back to */
export function isCallback() {
  return /^\/(keys|approvals)\/callback$/.test(location.pathname);
}

/** @param {import("./settings.js").Settings} settings */
function redirectUri(settings) {
  return `${settings.publicUrl}/${location.pathname.split("/")[1]}/callback`;
}

/**
 * Go to the issuer.
 * @param {import("./settings.js").Settings} settings
 */
export async function begin(settings) {
  const { endpoints } = settings;
  if (endpoints === null || settings.clientId === null) throw new Problem("The issuer can't be reached just now.");
  const [state, nonce, verifier] = [random(), random(), random()];
  const challenge = await challengeOf(verifier);
  sessionStorage.setItem(ENTRY, JSON.stringify({ state, nonce, verifier, returnTo: location.pathname }));
  const url = new URL(endpoints.authorization);
  const asked = {
    response_type: "code",
    client_id: settings.clientId,
    redirect_uri: redirectUri(settings),
    scope: settings.scopes,
    state,
    code_challenge: challenge,
    code_challenge_method: "S256",
    ...(wantsIdToken(settings) ? { nonce } : {}),
    ...(settings.resource === null ? {} : { resource: settings.resource }),
  };
  for (const [name, value] of Object.entries(asked)) url.searchParams.set(name, value);
  location.assign(url);
}

/**
 * Finish what was begun, on the page that the issuer sent the person back to. The address no longer shows the code
 * afterwards, and what was stored is gone, however this ends.
 * @param {import("./settings.js").Settings} settings
 * @returns {Promise<Signed>}
 */
export async function finish(settings) {
  const answer = new URLSearchParams(location.search);
  const begun = comeBack();
  if (begun === null || answer.get("state") !== begun.state) {
    throw new Problem("This sign-in was not begun in this tab, or is finished already. Sign in again.");
  }
  const { endpoints } = settings;
  if (endpoints === null) throw new Problem("The issuer can't be reached just now. Sign in again in a minute.");
  const from = answer.get("iss");
  if (from === null ? endpoints.namesItself : from !== settings.issuer) {
    throw new Problem("The answer came from another issuer than the one you were sent to. Do not sign in there again; tell whoever runs this service.");
  }
  if (answer.get("error") !== null) throw new Problem(refusal(answer));
  return redeem(settings, endpoints, answer.get("code") ?? "", begun);
}

/**
 * Erase what was stored, and the answer from the address.
 * @returns {{state: string, nonce: string, verifier: string, returnTo: string} | null} what was begun in this tab
 */
export function comeBack() {
  const text = sessionStorage.getItem(ENTRY);
  sessionStorage.removeItem(ENTRY);
  let begun = null;
  try {
    begun = JSON.parse(text ?? "null");
  } catch {
    // Not ours: as if nothing were there.
  }
  if (begun !== null && !RETURN_TO.test(begun.returnTo)) begun = null;
  history.replaceState(null, "", begun?.returnTo ?? "/keys");
  return begun;
}

/** @param {URLSearchParams} answer */
function refusal(answer) {
  if (answer.get("error") === "access_denied") return "The sign-in was not completed at the issuer.";
  return `The issuer refused the sign-in: ${(answer.get("error_description") ?? answer.get("error") ?? "").slice(0, 300)}`;
}

/** @returns {Promise<Signed>} */
async function redeem(settings, endpoints, code, begun) {
  const body = new URLSearchParams({
    grant_type: "authorization_code",
    code,
    redirect_uri: redirectUri(settings),
    client_id: settings.clientId,
    code_verifier: begun.verifier,
    ...(settings.resource === null ? {} : { resource: settings.resource }),
  });
  let tokens;
  try {
    const answer = await fetch(endpoints.token, {
      method: "POST",
      body,
      headers: { Accept: "application/json" },
      credentials: "omit",
      redirect: "error",
      cache: "no-store",
    });
    tokens = await answer.json();
    if (!answer.ok) throw new Problem(`The issuer refused the sign-in: ${String(tokens.error_description ?? tokens.error ?? answer.status).slice(0, 300)}`);
  } catch (error) {
    if (error instanceof Problem) throw error;
    throw new Problem("The issuer did not answer this page. Whoever runs it may have to allow this page's origin (CORS) for the token endpoint.");
  }
  if (typeof tokens.access_token !== "string" || String(tokens.token_type).toLowerCase() !== "bearer") {
    throw new Problem("The issuer answered without an access token.");
  }
  const name = wantsIdToken(settings) ? nameIn(tokens.id_token, settings, begun.nonce) : null;
  return { token: tokens.access_token, name, revocation: endpoints.revocation };
}

/** Check whom the ID token is for, and return who signed in (OpenID Connect Core 3.1.3.7). */
function nameIn(idToken, settings, nonce) {
  let claims;
  try {
    claims = claimsOf(String(idToken));
  } catch {
    throw new Problem("The issuer answered without an ID token.");
  }
  const now = Date.now() / 1000;
  const isForUs = [claims.aud].flat().includes(settings.clientId) && (claims.azp ?? settings.clientId) === settings.clientId;
  const isNow = Number(claims.exp) > now - CLOCK_SKEW_S;
  if (claims.iss !== settings.issuer || !isForUs || !isNow || claims.nonce !== nonce) {
    throw new Problem("The issuer's answer does not belong to this sign-in. Sign in again.");
  }
  return String(claims.preferred_username ?? claims.email ?? claims.name ?? claims.sub);
}

function wantsIdToken(settings) {
  return settings.scopes.split(" ").includes("openid");
}
