// Asks an address for JSON again and again while the page is seen: as often as it may, through refusals and lost
// networks, until what it asks about is over.
const EVERY_MS = 4000;
const PATIENCE_MS = 15_000;
const OVER = [401, 403, 404, 410];

function seen() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((done) => {
    document.addEventListener("visibilitychange", function look() {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      done();
    });
  });
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** One asking: the answer's JSON, or an error with `over` where there is nothing more to ask, `waitMs` where it says so. */
export async function ask(address) {
  const answer = await fetch(address, {
    headers: { Accept: "application/json" },
    cache: "no-store",
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  if (answer.ok) return answer.json();
  const waitMs = Number(answer.headers.get("Retry-After")) * 1000 || EVERY_MS;
  throw Object.assign(new Error(answer.statusText), { over: OVER.includes(answer.status), waitMs, status: answer.status });
}

/**
 * Follows `address`. `told` gets each answer; `troubled`, after each asking, how many have failed since the last that
 * did not; `over` is called once, at the end.
 */
export async function follow(address, { told, troubled = () => {}, over }) {
  let failed = 0;
  for (;;) {
    await seen();
    let waitMs = EVERY_MS;
    try {
      await told(await ask(address));
      failed = 0;
    } catch (error) {
      if (error.over) return over();
      failed += 1;
      waitMs = Math.max(EVERY_MS, error.waitMs ?? 0);
      console.debug(error);
    }
    troubled(failed);
    await pause(waitMs);
  }
}

/** Says in `element` that the server is not reached, once that has lasted. */
export function trouble(element) {
  return (failed) => {
    const text = failed > 2 ? element.dataset.words : "";
    if (element.textContent !== text) element.textContent = text;
    element.hidden = !text;
  };
}
