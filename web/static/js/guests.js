// A guest's view of an open gallery: pictures come by themselves, and never under a finger; at its end the server's own
// words replace it.
import { ask, follow, trouble } from "./follow.js";
import { open } from "./lightbox.js";
import { serverNow, show } from "./time.js";

const FEW = 12;
const MOST_AT_ONCE = 200;
const STILL_MS = 1500;
const TRIES_MS = [2000, 5000, 15_000, 60_000];
const list = document.getElementById("pictures");
const arrived = document.getElementById("arrived");
const blank = document.getElementById("item");
const source = list.dataset.source;
const end = Date.parse(list.dataset.end);
let waiting = []; // newest first
let touchedAt = -Infinity;

const reload = () => location.replace(location.href);
const shown = () => new Set([...list.children].map((item) => item.dataset.job));

if (history.state?.lightbox) history.back(); // loaded anew while one was open

function drawn(picture) {
  const item = blank.content.firstElementChild.cloneNode(true);
  item.dataset.job = picture.job_id;
  const link = item.querySelector("a");
  link.href = `${picture.url}&size=1280`;
  link.dataset.download = `${picture.url}&download=1`;
  item.querySelector("img").src = picture.thumbnail_url;
  item.querySelector("time").dateTime = picture.finalized_at;
  show(item);
  return item;
}

function calm() {
  return (
    scrollY < 120 &&
    !list.matches(":has(.photo:hover)") &&
    !list.contains(document.activeElement) &&
    performance.now() - touchedAt > STILL_MS
  );
}

function insert() {
  const known = shown();
  const items = waiting.filter((one) => !known.has(one.job_id)).map(drawn);
  waiting = [];
  for (const item of items) item.querySelector(".photo").classList.add("new");
  list.prepend(...items);
  arrived.hidden = true;
  document.getElementById("none").hidden = list.childElementCount > 0;
}

function settle() {
  if (!waiting.length) return;
  if (calm()) insert();
  else arrived.hidden = scrollY < 120;
}

// The newest pictures; where all of the few are new there may be more behind them.
async function told(gallery) {
  const known = shown();
  const fresh = (page) => page.items.filter((one) => !known.has(one.job_id));
  waiting = fresh(gallery);
  if (waiting.length === FEW) waiting = fresh(await ask(`${source}&limit=${MOST_AT_ONCE}`));
  settle();
}

async function older(event) {
  event.preventDefault();
  const link = event.currentTarget;
  if (link.ariaDisabled === "true") return;
  link.ariaDisabled = "true";
  try {
    const page = await ask(link.href);
    const known = shown();
    list.append(...page.items.filter((one) => !known.has(one.job_id)).map(drawn));
    if (page.next) link.href = `${source}&after=${page.next}`;
    else link.remove();
  } catch (problem) {
    if (problem.over) reload();
  } finally {
    link.ariaDisabled = "false";
  }
}

// A picture that did not come, for the network or for too many askings, is asked for again.
function again(event) {
  const image = event.target;
  const tries = Number(image.dataset.tries ?? 0);
  if (image.tagName !== "IMG" || !image.src || tries >= TRIES_MS.length) return;
  image.dataset.tries = tries + 1;
  const address = image.src;
  setTimeout(() => {
    if (image.isConnected && image.src === address) image.src = address;
  }, TRIES_MS[tries]);
}

document.addEventListener("error", again, true);
document.addEventListener("click", (event) => {
  const target = event.target.closest ? event.target : document.body;
  const link = target.closest("#pictures a");
  if (link && !(event.ctrlKey || event.metaKey || event.shiftKey)) {
    event.preventDefault();
    open(link);
  }
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(target)) menu.open = false;
});
for (const name of ["pointerdown", "pointermove", "touchstart"]) {
  list.addEventListener(name, () => (touchedAt = performance.now()), { passive: true });
}
document.getElementById("older")?.addEventListener("click", older);
arrived.addEventListener("click", () => {
  insert();
  scrollTo({ top: 0 });
});

if (list.hasAttribute("data-first")) {
  setInterval(settle, 1000);
  follow(`${source}&limit=${FEW}`, { told, over: reload, troubled: trouble(document.getElementById("trouble")) });
} else {
  follow(`${source}&limit=1`, { told: () => {}, over: reload });
}
setTimeout(function look() {
  if (serverNow() >= end) reload();
  else setTimeout(look, 1000);
}, 1000);
