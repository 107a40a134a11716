// Reads the page anew and puts what has changed into its places: each element marked data-live="name" takes over what
// the element of that name holds now. What is under the pointer or has the focus waits, so that nothing moves there; but
// for what one has just done oneself.
import { show } from "./time.js";

const PATIENCE_MS = 15_000;
let running = null;
let wanted = false;
let outdated = false;

/** The page as the server would write it now; null where it cannot be had. */
export async function fetched(address = location.href) {
  try {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const answer = await fetch(address, { headers: { Accept: "text/html" }, cache: "no-store", signal });
    const signedOut = answer.redirected && new URL(answer.url).pathname === "/sign-in";
    if (signedOut) (await import("./session.js")).over(); // not before: the first load is to be small
    if (signedOut || !answer.ok) return null;
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    return null;
  }
}

function busy(element) {
  if (!element.querySelector("a, button, input, select, summary, textarea")) return false;
  return element.matches(":hover") || element.contains(document.activeElement);
}

// Once the pointer and the focus have left, what has waited comes.
function later(element) {
  for (const name of ["pointerleave", "focusout"]) {
    element.addEventListener(name, () => setTimeout(() => busy(element) || refresh(), 300), { once: true });
  }
}

// Who stood on something in `element` stands on the same afterwards, else on what has come in its place.
function keepingFocus(element, change) {
  const reached = () => [...element.querySelectorAll("a[href], button:enabled, input, select, summary, textarea")];
  const had = element.contains(document.activeElement) ? document.activeElement : null;
  const at = had ? reached().indexOf(had) : -1;
  change();
  if (!had || had.isConnected) return;
  const now = reached();
  const same = (had.id && document.getElementById(had.id)) || now.find((one) => one.outerHTML === had.outerHTML);
  (same || now[Math.min(Math.max(at, 0), now.length - 1)] || document.getElementById("main")).focus({ preventScroll: true });
}

/**
 * Takes over from `fresh` (a document) what is marked in `root`; gives the elements that have changed. `through`: also
 * what is under the pointer or has the focus, which is kept.
 */
export function adopt(fresh, root = document, { through = false } = {}) {
  const changed = [];
  for (const old of root.querySelectorAll("[data-live]")) {
    const now = fresh.querySelector(`[data-live="${CSS.escape(old.dataset.live)}"]`);
    if (!now) continue;
    const source = now.outerHTML;
    if ((old.liveSource ??= original(old)) === source) continue;
    if (!through && busy(old)) {
      later(old);
      continue;
    }
    old.liveSource = source;
    keepingFocus(old, () => old.replaceChildren(...now.childNodes));
    for (const name of new Set([...old.getAttributeNames(), ...now.getAttributeNames()])) {
      if (now.hasAttribute(name)) old.setAttribute(name, now.getAttribute(name));
      else old.removeAttribute(name);
    }
    show(old);
    changed.push(old);
  }
  return changed;
}

// Before its first change an element may already have been touched by time.js: the server's own text is in `title`.
function original(element) {
  const copy = element.cloneNode(true);
  for (const time of copy.querySelectorAll("time[data-server]")) {
    time.textContent = time.dataset.server;
    time.removeAttribute("data-server");
    time.removeAttribute("title");
  }
  return copy.outerHTML;
}

// As the server wrote them, before another module puts anything into them.
for (const element of document.querySelectorAll("[data-live]")) element.liveSource = original(element);

/**
 * Reads the page anew, one reading at a time; `then` gets the fresh document. `changed`: something was just changed
 * here: it is shown even where the pointer rests, and a reading that had begun before does not bring back what was.
 */
export async function refresh(then = () => {}, { changed = false } = {}) {
  if (running) {
    wanted = true;
    outdated ||= changed;
    return running;
  }
  running = (async () => {
    let through = changed;
    do {
      wanted = outdated = false;
      const fresh = await fetched();
      document.dispatchEvent(new CustomEvent("live:read", { detail: fresh !== null }));
      if (fresh && !outdated) {
        adopt(fresh, document, { through });
        then(fresh);
        through = false;
      }
      through ||= outdated;
    } while (wanted);
  })();
  try {
    await running;
  } finally {
    running = null;
  }
}

/** `work`, at most once in `ms`, and once more at the end where it was asked for meanwhile. */
export function calmly(work, ms) {
  let timer = null;
  let last = 0;
  return () => {
    if (timer !== null) return;
    timer = setTimeout(() => {
      timer = null;
      last = Date.now();
      work();
    }, Math.max(0, last + ms - Date.now()));
  };
}
