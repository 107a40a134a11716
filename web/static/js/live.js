// What happens on the server now: one stream a tab, closed while nobody looks at it. Each event is dispatched on the
// document as live:job, live:queue; where something may have been missed, the page is told to read itself anew.
import { serverNow, show } from "./time.js";

const POLL_MS = 5000;
// Not everything that can go wrong is an event: a page that is seen is read anew now and then, stream or not.
const CALM_MS = 20_000;
const AGAIN_MS = 3000;
// What has happened between the writing of a page and its stream's begin is read when the page has settled.
const SETTLED_MS = 5000;
let source = null;
let timer = null;
let pace = 0;
let again = null;
let refresh = () => {};
let streams = true;
let knownAt = serverNow();

function tell(name, event) {
  document.dispatchEvent(new CustomEvent(`live:${name}`, { detail: JSON.parse(event.data) }));
}

// What the header's light shows: on; polling where the stream is lost; lost where the page cannot be read either. Then
// nobody knows how things are, and every element data-lost says since when.
function standing(state) {
  const root = document.documentElement;
  if (state === "lost" && root.dataset.live !== state) {
    for (const since of document.querySelectorAll("time[data-lost]")) {
      since.dateTime = new Date(knownAt).toISOString();
      since.dataset.time = "day";
      delete since.dataset.server; // of the last time it was so
    }
    show();
  } else if (state !== "lost") knownAt = serverNow();
  root.dataset.live = state;
}

// Each reading says whether the server is reached, whatever the stream seems to be.
function heard(event) {
  const streaming = source?.readyState === EventSource.OPEN;
  standing(!event.detail ? "lost" : !source || streaming ? "on" : "polling");
  every(event.detail && streaming ? CALM_MS : POLL_MS);
}

const isLost = () => document.documentElement.dataset.live === "lost";

function every(ms) {
  if (ms === pace) return;
  clearInterval(timer);
  if (ms) timer = setInterval(() => refresh(), ms);
  pace = ms;
}

function open() {
  close();
  // A page that shows nothing live, or an account that may not listen, asks now and then.
  if (!streams || document.body.dataset.stream === undefined) {
    if (!isLost()) standing("on");
    return every(POLL_MS);
  }
  source = new EventSource("/api/events");
  source.addEventListener("hello", () => {
    every(CALM_MS);
    standing("on");
    setTimeout(() => refresh(), Math.max(0, SETTLED_MS - performance.now())); // what happened before the stream began
  });
  source.addEventListener("missed", () => refresh());
  for (const name of ["job", "queue"]) source.addEventListener(name, (event) => tell(name, event));
  source.onerror = () => {
    if (!isLost()) standing("polling");
    every(POLL_MS);
    if (source?.readyState === EventSource.CLOSED) again ??= setTimeout(open, AGAIN_MS); // refused: it will not retry
  };
}

function close() {
  clearTimeout(again);
  again = null;
  source?.close();
  source = null;
}

/**
 * Watches for as long as the page is seen. `onRefresh` reads anew what the page shows. `stream: false`: without the
 * stream, which takes the permission jobs:read, by asking every few seconds.
 */
export function watch(onRefresh, { stream = true } = {}) {
  refresh = onRefresh;
  streams = stream;
  document.addEventListener("live:read", (event) => !document.hidden && heard(event));
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      every(0);
      close();
    } else open();
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && open());
  if (!document.hidden) open();
}
