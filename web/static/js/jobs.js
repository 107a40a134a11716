// Keeps the list of jobs as things are: rows change in place, new ones are announced and never push others away; and
// does with the chosen ones, or with all that match, what is asked.
import { call, post } from "./api.js";
import { stand } from "./busy.js";
import { confirm } from "./dialog.js";
import { watch } from "./live.js";
import { calmly, refresh } from "./refresh.js";
import { complain, toast } from "./toast.js";
import { count, word } from "./words.js";

const EVERY_MS = 1500;
const RERUNS = 50; // of one request
const MOST_RERUNS = 500;
const PAGE = 200;
const MOST_PAGES = 10;
const table = document.querySelector("table.jobs");
const bulk = document.getElementById("bulk");

// -- live -------------------------------------------------------------------------------------------------------------

const ids = (root) => [...root.querySelectorAll("tr[data-job]")].map((row) => row.dataset.job);

function announce(fresh) {
  if (table && table.dataset.first !== "true") return;
  const known = new Set(table ? ids(table) : []);
  const now = ids(fresh);
  const behind = now.findIndex((id) => known.has(id));
  const newer = behind < 0 ? now.length : behind;
  const news = document.getElementById("news");
  news.hidden = newer === 0;
  if (newer) news.textContent = count("jobs.new", newer);
}

const look = calmly(async () => {
  await refresh(announce);
  if (bulk && table) show(); // what is chosen may have ended
}, EVERY_MS);
document.addEventListener("live:job", look);
watch(look);

// -- the choice -------------------------------------------------------------------------------------------------------

let every = false; // all that match, seen or not
const boxes = () => [...table.querySelectorAll("tbody input[type=checkbox]")];
const checked = () => boxes().filter((box) => box.checked);
const chosen = () => checked().map((box) => box.value);
const can = (box) => box.closest("tr").querySelector("[data-can]").dataset.can; // "" for what has ended without its photo
const able = (deed) => checked().filter((box) => can(box) === deed).map((box) => box.value);

// Only what something comes of; of jobs behind this page it is not known.
function offer() {
  const [running, kept] = [able("cancel").length, able("rerun").length];
  document.getElementById("cancel").hidden = !every && !running;
  document.getElementById("rerun").disabled = !every && !kept;
  const why = document.getElementById("why-not");
  why.hidden = every || kept > 0;
  why.textContent = running < checked().length ? word("jobs.no_rerun.deleted") : word("jobs.no_rerun.running");
}

function show() {
  const some = chosen();
  const all = document.getElementById("all");
  all.checked = some.length === boxes().length;
  all.indeterminate = some.length > 0 && !all.checked;
  if (!all.checked) every = false;
  bulk.hidden = some.length === 0;
  document.getElementById("chosen").textContent = every ? word("jobs.every_chosen") : count("jobs.n_chosen", some.length);
  offer();
  document.getElementById("every").hidden = every || !all.checked || table.dataset.more !== "true";
}

function choose(checked) {
  for (const box of boxes()) box.checked = checked;
  every = false;
  show();
}

// What `work` gives; undefined where it was refused, which has been said.
async function alone(work) {
  const buttons = [...bulk.querySelectorAll("button:enabled")];
  for (const button of buttons) button.disabled = true;
  try {
    return await work();
  } catch (problem) {
    complain(problem);
    return undefined;
  } finally {
    for (const button of buttons) button.disabled = false;
    progress(null);
  }
}

async function busy(work) {
  try {
    await alone(work);
  } finally {
    choose(false);
    stand(document.getElementById("all")); // the bar it was pressed on has gone
    look();
  }
}

function progress(part) {
  const bar = document.getElementById("progress");
  bar.hidden = part === null;
  if (part !== null) bar.value = part;
}

const filter = () => JSON.parse(table.dataset.filter);
const names = (some) => (every ? [] : some.slice(0, 8).map((id) => id.slice(0, 8)).concat(some.length > 8 ? ["…"] : []));

async function cancel() {
  const some = able("cancel");
  const sure = await confirm({
    title: every ? word("jobs.cancel_every") : count("jobs.cancel_title", some.length),
    text: word("jobs.cancel_text"),
    items: names(some),
    action: word("jobs.cancel"),
    leave: word("jobs.keep"),
  });
  if (!sure) return;
  await busy(async () => {
    let done = 0;
    let answer;
    do {
      answer = await post("/api/jobs/cancel", every ? { filter: filter() } : { job_ids: some });
      done += answer.cancelled;
    } while (answer.more && answer.cancelled);
    toast(done ? count("jobs.cancelled", done) : word("jobs.cancelled_none"), done ? "good" : "failed");
  });
}

// The newest that can be done again, of a few thousand: by default no photo outlives its job.
async function matching() {
  const found = [];
  let after = null;
  let pages = 0;
  do {
    progress(pages / MOST_PAGES);
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries({ ...filter(), limit: PAGE, ...(after ? { after } : {}) })) {
      for (const one of [value].flat()) query.append(name, one);
    }
    const page = await call("GET", `/api/jobs?${query}`);
    found.push(...page.items.filter((one) => one.finalized_at && one.has_original).map((one) => one.job_id));
    after = page.next;
    pages += 1;
  } while (after && found.length < MOST_RERUNS && pages < MOST_PAGES);
  return { some: found.slice(0, MOST_RERUNS), rest: after !== null || found.length > MOST_RERUNS };
}

async function rerun() {
  const found = every ? await alone(matching) : { some: able("rerun"), rest: false };
  if (!found) return;
  const { some, rest } = found;
  if (!some.length) return void toast(word("jobs.no_rerun.deleted"), "failed");
  const sure = await confirm({
    title: count("jobs.rerun_title", some.length),
    text: [word("jobs.rerun_text"), rest && word("jobs.rerun_newest")].filter(Boolean).join(" "),
    action: word("jobs.rerun"),
    danger: false,
  });
  if (!sure) return;
  await busy(async () => {
    let done = 0;
    let why = "";
    for (let at = 0; at < some.length; at += RERUNS) {
      progress(at / some.length);
      const { items } = await post("/api/jobs/rerun", { job_ids: some.slice(at, at + RERUNS) });
      done += items.filter((one) => one.job_id).length;
      why ||= items.find((one) => one.failure)?.failure.detail ?? "";
    }
    if (done) toast(count("jobs.rerun_made", done));
    if (done < some.length) toast(`${count("jobs.rerun_not", some.length - done)} ${why}`, "failed");
  });
}

if (bulk && table) {
  let last = null;
  table.addEventListener("click", (event) => {
    const box = event.target.closest("tbody input[type=checkbox]");
    if (!box) return;
    if (event.shiftKey && last) {
      const all = boxes();
      const [from, to] = [all.indexOf(last), all.indexOf(box)].sort((a, b) => a - b);
      for (const one of all.slice(from, to + 1)) one.checked = box.checked;
    }
    last = box;
    show();
  });
  document.getElementById("all").addEventListener("change", (event) => choose(event.target.checked));
  document.getElementById("none").addEventListener("click", () => choose(false));
  document.getElementById("every").addEventListener("click", () => {
    every = true;
    show();
  });
  document.getElementById("cancel").addEventListener("click", cancel);
  document.getElementById("rerun").addEventListener("click", rerun);
  show(); // a browser that goes back keeps what was chosen
}

// An address without the fields that are empty.
document.querySelector(".filters").addEventListener("submit", (event) => {
  for (const field of event.target.elements) if (field.name && !field.value) field.disabled = true;
});
addEventListener("pageshow", () => {
  for (const field of document.querySelector(".filters").elements) field.disabled = false;
});
