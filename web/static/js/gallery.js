// The gallery: what is selected goes into one ZIP file, new pictures are announced and come when one asks for them,
// windows for guests are opened.
import "./gallery-share.js";
import { get, post } from "./api.js";
import { busily } from "./busy.js";
import { watch } from "./live.js";
import { calmly, fetched, refresh } from "./refresh.js";
import { show } from "./time.js";
import { toast } from "./toast.js";
import { count, word } from "./words.js";

const EVERY_MS = 1500;
const A_PAGE = 200;
const form = document.getElementById("pictures");
const most = Number(form.dataset.most);
const bar = form.querySelector(".chosen");
const arrived = document.getElementById("arrived");
const chosen = new Set(); // of jobs, also of those that are not on the page
let fresh = null;
let isGap = false;
let last = null;

const items = (root) => [...root.querySelectorAll(".pick")];
const shown = () => new Set(items(form).map((item) => item.dataset.job));

// -- the selection

function mark() {
  for (const item of items(form)) {
    const box = item.querySelector("input");
    box.checked = chosen.has(item.dataset.job);
    item.classList.toggle("on", box.checked);
  }
  form.classList.toggle("choosing", chosen.size > 0);
  const tooMany = chosen.size > most;
  bar.querySelector(".count").textContent = tooMany
    ? word("gallery.too_many", { n: chosen.size, most })
    : chosen.size
      ? count("gallery.chosen", chosen.size)
      : "";
  bar.querySelector("button:not([data-clear])").disabled = tooMany;
}

function tick(box, wanted) {
  if (wanted) chosen.add(box.value);
  else chosen.delete(box.value);
}

function ticked(box, range) {
  const boxes = [...form.querySelectorAll(".pick input")];
  const from = range && last ? boxes.indexOf(last) : -1;
  const to = boxes.indexOf(box);
  const between = from < 0 ? [box] : boxes.slice(Math.min(from, to), Math.max(from, to) + 1);
  for (const one of between) tick(one, box.checked);
  last = box;
  mark();
}

async function jobsOf(day) {
  const found = [];
  const asked = new URLSearchParams({ limit: A_PAGE, since: day.dataset.since, until: day.dataset.until });
  if (form.dataset.slot) asked.set("slot_id", form.dataset.slot);
  do {
    const page = await get(`/api/results?${asked}`);
    found.push(...page.items.map((one) => one.job_id));
    if (!page.next) break;
    asked.set("after", page.next);
  } while (found.length <= most);
  return found;
}

const selectDay = (button) =>
  busily(button, async () => {
    const jobs = await jobsOf(button.closest(".day"));
    const all = jobs.every((job) => chosen.has(job));
    for (const job of jobs) {
      if (all) chosen.delete(job);
      else chosen.add(job);
    }
    mark();
  });

async function pack() {
  if (!chosen.size) return;
  await get("/api/me"); // that a session is over is said here, not in the file
  const asked = new URLSearchParams([...chosen].map((job) => ["job_id", job]));
  const link = document.createElement("a");
  link.href = `/api/results/zip?${asked}`;
  link.download = "";
  link.click();
  toast(count("gallery.packing", chosen.size));
  chosen.clear();
  mark();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  busily(bar.querySelector("button:not([data-clear])"), pack);
});
form.addEventListener("click", (event) => {
  const box = event.target.closest(".pick input");
  if (box) ticked(box, event.shiftKey);
  const day = event.target.closest("[data-select-day]");
  if (day) selectDay(day);
  if (event.target.closest("[data-clear]")) {
    chosen.clear();
    mark();
  }
});
mark();

// -- what comes, and what is older

/** Puts what `page` (a document) has and the list has not into it, in front or behind. */
function merge(page, where) {
  const known = shown();
  for (const day of page.querySelectorAll("#pictures .day")) {
    const mine = form.querySelector(`.day[data-day="${day.dataset.day}"]`);
    const added = items(day).filter((item) => !known.has(item.dataset.job));
    show(day);
    if (!added.length) continue;
    if (mine) mine.querySelector(".photos")[where](...added);
    else (where === "append" ? bar : firstBefore(day)).before(day);
    if (where === "prepend") for (const item of added) item.querySelector(".photo").classList.add("new");
  }
  mark();
}

function firstBefore(day) {
  return [...form.querySelectorAll(".day")].find((one) => one.dataset.day < day.dataset.day) ?? bar;
}

function announce(page) {
  const known = shown();
  const news = items(page).filter((item) => item.matches("#pictures *") && !known.has(item.dataset.job)).length;
  fresh = news ? page : null;
  isGap = news > 0 && known.size > 0 && news === items(page).length; // between them and ours there may be more
  arrived.hidden = !news;
  if (news) arrived.textContent = isGap ? word("gallery.arrived_many", { n: news }) : count("gallery.arrived", news);
}

arrived.addEventListener("click", () => {
  if (!fresh) return;
  if (isGap || !form.querySelector(".day")) {
    location.reload();
    return;
  }
  merge(fresh, "prepend");
  fresh = null;
  arrived.hidden = true;
  scrollTo({ top: 0 });
  form.querySelector(".photo")?.focus({ preventScroll: true });
});

document.getElementById("older")?.addEventListener("click", async (event) => {
  event.preventDefault();
  const link = event.currentTarget;
  const page = await fetched(link.href);
  if (!page) {
    toast(word("ui.unreachable"), "failed");
    return;
  }
  merge(page, "append");
  const next = page.getElementById("older");
  if (next) link.href = next.getAttribute("href");
  else link.remove();
});

const look = calmly(() => refresh(form.hasAttribute("data-first") ? announce : undefined), EVERY_MS);
document.addEventListener("live:job", (event) => event.detail.picture && look());
watch(look);

// -- filters, and windows for guests

for (const field of document.querySelectorAll(".gallery-filters select, .gallery-filters input")) {
  field.addEventListener("change", () => field.form.requestSubmit());
}

const opening = document.getElementById("open-share");
if (location.hash === "#opening") {
  history.replaceState(null, "", location.pathname + location.search);
  opening?.closest("dialog").showModal();
}
opening?.addEventListener("change", () => {
  const own = opening.minutes.value === "own";
  opening.querySelector("#own").disabled = !own;
});
opening?.addEventListener("submit", (event) => {
  event.preventDefault();
  const wrong = opening.querySelector(".error");
  const minutes = Number(opening.minutes.value === "own" ? opening.querySelector("#own").value : opening.minutes.value);
  wrong.hidden = true;
  const open = async () => {
    const share = await post("/api/gallery-shares", { slot_id: opening.slot_id.value || null, minutes });
    location.assign(`/gallery/shares/${share.id}`);
    await new Promise(() => {}); // until it is there, the button stays as it is
  };
  const refused = (problem) => {
    wrong.textContent = problem.message;
    wrong.hidden = false;
  };
  busily(opening.querySelector("[type=submit], button:not([type])"), open, { refused });
});
