// What went wrong, in words for the person at the page.

/** A failure that is told to the person as it is. */
export class Problem extends Error {
  /**
   * @param {string} message
   * @param {{status?: number}} [about]
   */
  constructor(message, { status = 0 } = {}) {
    super(message);
    this.status = status;
  }
}

/** @param {unknown} error */
export function wordsOf(error) {
  if (error instanceof Problem) return error.message;
  return "Something went wrong in this page. Load it again; if that does not help, tell whoever runs this service.";
}
