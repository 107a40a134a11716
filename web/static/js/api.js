// Calls the JSON API as the signed-in account: the browser's session cookie goes along by itself.
import { ended } from "./session.js";
import { word } from "./words.js";

/** A refusal (application/problem+json). `errors`: what is wrong with which field. */
export class Problem extends Error {
  constructor(body, status, headers) {
    super(body.detail || body.title || word("ui.failed"));
    this.status = status;
    this.code = body.code ?? "";
    this.title = body.title ?? "";
    this.errors = body.errors ?? [];
    this.retryAfter = Number(headers?.get("Retry-After")) || null;
    this.version = headers?.get("ETag") ?? null; // of the newer version, where somebody else has saved
  }
}

async function problemOf(answer) {
  const kind = answer.headers.get("Content-Type") ?? "";
  const body = kind.includes("json") ? await answer.json().catch(() => ({})) : {};
  return new Problem(body, answer.status, answer.headers);
}

/**
 * Asks `/api`. `json` is sent as JSON, `body` as it is; `version` (an ETag) as If-Match.
 * Gives what came, parsed, its ETag as `etag`; null for an empty answer. Throws a Problem.
 */
export async function call(method, path, { json, body, version, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (json !== undefined) headers["Content-Type"] = "application/json";
  if (version) headers["If-Match"] = version;
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: json === undefined ? body : JSON.stringify(json), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ detail: word("ui.unreachable"), code: "unreachable" }, 0);
  }
  if (answer.status === 401) await ended();
  if (!answer.ok) throw await problemOf(answer);
  if (answer.status === 204) return null;
  const value = await answer.json();
  const tag = answer.headers.get("ETag");
  if (tag) Object.defineProperty(value, "etag", { value: tag });
  return value;
}

export const get = (path, options) => call("GET", path, options);
export const post = (path, json, options) => call("POST", path, { json, ...options });
export const patch = (path, json, options) => call("PATCH", path, { json, ...options });
export const put = (path, json, options) => call("PUT", path, { json, ...options });
export const remove = (path, options) => call("DELETE", path, options);
