// Who is signed in: an access token in this tab's memory, and what is asked with it.

import { Problem } from "./problem.js";

const SENTENCES = {
  403: "Your sign-in does not allow this.",
  404: "This is not there any more.",
  429: "Too many requests.",
  503: "The service can't do this just now.",
};

/** What a person may do here while the token is good. */
export class Session {
  #token;
  #settings;
  #revocation;
  #ended;

  /**
   * @param {import("./settings.js").Settings} settings
   * @param {import("./sign_in.js").Signed} signed
   * @param {(why: string) => void} ended called when the token is good no more
   */
  constructor(settings, signed, ended) {
    this.#settings = settings;
    this.#token = signed.token;
    this.#revocation = signed.revocation;
    this.#ended = ended;
    this.name = signed.name;
  }

  /**
   * Ask the sidecar for something.
   * @param {string} method
   * @param {string} path
   * @param {unknown} [document]
   * @returns {Promise<any>} the answer's document, null where there is none
   */
  async ask(method, path, document) {
    const answer = await this.#send(method, path, document);
    if (answer.status === 204) return null;
    const content = await answer.json().catch(() => ({}));
    if (answer.ok) return content;
    if (answer.status === 401) {
      this.#token = "";
      this.#ended("Your sign-in has expired or is not valid here. Sign in again.");
    }
    const detail = typeof content.detail === "string" ? content.detail.slice(0, 500) : "";
    const wait = answer.headers.get("Retry-After");
    const words = [SENTENCES[answer.status], detail || null, wait && `Try again in ${wait} seconds.`];
    throw new Problem(words.filter(Boolean).join(" ") || `The service answered ${answer.status}.`, { status: answer.status });
  }

  /** Forget the token, and tell the issuer that gave it, no other, that it is to be worth nothing (RFC 7009). */
  async signOut() {
    const token = this.#token;
    this.#token = "";
    if (!this.#revocation || !token) return;
    const body = new URLSearchParams({ token, token_type_hint: "access_token", client_id: this.#settings.clientId });
    await fetch(this.#revocation, { method: "POST", body, credentials: "omit", redirect: "error", keepalive: true }).catch(() => null);
  }

  async #send(method, path, document) {
    try {
      return await fetch(path, {
        method,
        headers: { Authorization: `Bearer ${this.#token}`, ...(document === undefined ? {} : { "Content-Type": "application/json" }) },
        body: document === undefined ? null : JSON.stringify(document),
        credentials: "omit",
        cache: "no-store",
        redirect: "error",
      });
    } catch {
      throw new Problem("The service can't be reached. What you asked for may or may not be done: look again before you repeat it.");
    }
  }
}
