// The secrets of one sign-in (RFC 7636), from the browser's own cryptography.

/** @param {ArrayBuffer | Uint8Array} bytes */
function base64url(bytes) {
  return btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

/** Return 256 random bits, written in 43 characters. */
export function random() {
  return base64url(crypto.getRandomValues(new Uint8Array(32)));
}

/**
 * Return the S256 challenge of a verifier.
 * @param {string} verifier
 */
export async function challengeOf(verifier) {
  return base64url(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier)));
}

/**
 * Read the claims of an ID token that came from the token endpoint itself, so that its signature proves nothing more
 * (OpenID Connect Core 3.1.3.7, 6).
 * @param {string} token
 * @returns {Record<string, any>}
 */
export function claimsOf(token) {
  const part = token.split(".")[1] ?? "";
  const bytes = Uint8Array.from(atob(part.replace(/-/g, "+").replace(/_/g, "/")), (character) => character.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}
