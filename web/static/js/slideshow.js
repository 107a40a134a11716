// One picture after the other over the whole screen, for hours: the newest next, else on through those that are there.
// Two images take turns; nothing else is kept but the list of the newest.
import { follow, trouble } from "./follow.js";
import { serverNow } from "./time.js";

const EACH_MS = 7000;
const NEW_MS = 3000; // a new picture need not wait for the whole of its predecessor's time
const MOST = 60;
const LOAD_MS = 30_000;
const IDLE_MS = 3000;
const LARGE_PX = 1400;
const stage = document.getElementById("stage");
const end = Date.parse(stage.dataset.end ?? "");
const code = document.querySelector(".qr[data-until]");
const main = document.querySelector("main");
let [front, back] = stage.querySelectorAll("img");
let pictures = []; // newest first
let fresh = []; // not shown yet, oldest first
let known = null;
let current = null;
let changedAt = -Infinity;
let changing = false;
let held = false;

const reload = () => location.replace(location.href);
const pathOf = (address) => {
  const { pathname, search } = new URL(address, location.href);
  return pathname + search;
};
const addressOf = (picture) => {
  const path = pathOf(picture.url);
  return Math.max(innerWidth, innerHeight) * devicePixelRatio > LARGE_PX ? path : `${path}&size=1280`;
};

function told(page) {
  pictures = page.items.slice(0, MOST);
  const ids = new Set(pictures.map((one) => one.job_id));
  if (known) fresh.push(...pictures.filter((one) => !known.has(one.job_id)).reverse());
  fresh = fresh.filter((one) => ids.has(one.job_id));
  known = ids;
  document.getElementById("none").hidden = pictures.length > 0;
  if (!pictures.length) [front, back].forEach((image) => (image.hidden = true));
}

function following(step = 1) {
  if (step > 0 && fresh.length) return fresh.shift();
  if (!pictures.length) return null;
  const at = pictures.findIndex((one) => one.job_id === current);
  return pictures[at < 0 ? 0 : (at + step + pictures.length) % pictures.length];
}

function loaded(image, address) {
  return new Promise((done) => {
    const timer = setTimeout(() => finish(false), LOAD_MS);
    function finish(well) {
      clearTimeout(timer);
      image.onload = image.onerror = null;
      done(well);
    }
    image.onload = () => finish(true);
    image.onerror = () => finish(false);
    image.src = address;
  });
}

async function change(step = 1) {
  if (changing) return;
  const next = following(step);
  if (!next) return;
  changing = true;
  if (next.job_id !== current) {
    const well = await loaded(back, addressOf(next));
    if (well) {
      await back.decode().catch(() => {});
      back.hidden = front.hidden = false;
      back.classList.add("front");
      front.classList.remove("front");
      stage.dataset.shown = next.job_id;
      [front, back] = [back, front];
    }
    current = next.job_id; // what cannot be loaded is passed over
  }
  changedAt = performance.now();
  changing = false;
}

function tick() {
  if (!Number.isNaN(end) && serverNow() >= end) return reload();
  if (code && serverNow() >= Date.parse(code.dataset.until)) code.hidden = true; // what it leads to has closed
  const since = performance.now() - changedAt;
  if (!document.hidden && !held && since >= (fresh.length ? NEW_MS : EACH_MS)) change();
  return setTimeout(tick, 500);
}

// The screen stays on where the browser lets us (never on plain http).
async function stayAwake() {
  try {
    await navigator.wakeLock.request("screen");
  } catch {
    // then it is the screen's own setting
  }
}

let idle = null;
function stir() {
  main.classList.remove("idle");
  clearTimeout(idle);
  idle = setTimeout(() => main.classList.add("idle"), IDLE_MS);
}

const full = document.getElementById("full");
full.hidden = !document.fullscreenEnabled;
full.onclick = () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen());
document.addEventListener("keydown", (event) => {
  stir();
  if (event.key === "ArrowRight") change(1);
  if (event.key === "ArrowLeft") change(-1);
  if (event.key === " " && event.target === document.body) held = !held;
  if (event.key === "f") full.click();
});
document.addEventListener("pointermove", stir);
document.addEventListener("visibilitychange", () => document.hidden || stayAwake());

stayAwake();
stir();
const joint = stage.dataset.source.includes("?") ? "&" : "?";
follow(`${stage.dataset.source}${joint}limit=${MOST}`, {
  told,
  over: reload,
  troubled: trouble(document.getElementById("trouble")),
});
tick();
