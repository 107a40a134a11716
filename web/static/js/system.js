// The machinery, kept as it stands; dead letters are tried again or deleted; the cache is purged, and one sees it done.
import { get, post, remove } from "./api.js";
import { busily } from "./busy.js";
import { confirm } from "./dialog.js";
import { watch } from "./live.js";
import { calmly, refresh } from "./refresh.js";
import { complain, toast } from "./toast.js";
import { word } from "./words.js";

const EVERY_MS = 3000;
const LOOK_MS = 700;
const PATIENCE_MS = 120_000;
const look = calmly(() => refresh(), EVERY_MS);

document.addEventListener("live:queue", look);
setInterval(() => document.hidden || look(), EVERY_MS);
watch(look);

function gone(letter) {
  const list = letter.parentElement;
  letter.remove();
  (list.querySelector("button") ?? document.getElementById("main")).focus();
  refresh(undefined, { changed: true });
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-requeue], [data-drop]");
  if (!button) return;
  const letter = button.closest("[data-letter]");
  const path = `/api/system/dead-letters/${letter.dataset.letter}`;
  const again = button.matches("[data-requeue]");
  const sure = again || (await confirm({
    title: word("system.js.drop", { name: letter.querySelector("h3").textContent }),
    text: word("system.js.drop_text"),
    action: word("system.js.drop_go"),
  }));
  if (!sure) return;
  button.disabled = true;
  try {
    if (again) await post(`${path}/requeue`);
    else await remove(path);
    toast(again ? word("system.js.requeued") : word("system.js.dropped"));
    gone(letter);
  } catch (problem) {
    button.disabled = false;
    complain(problem);
  }
});

const runs = async () => Object.fromEntries((await get("/api/system/schedules")).items.map((one) => [one.name, one]));

/** Waits until each of `tasks` has run since `before`; gives what each has removed. */
async function done(tasks, before, onStep) {
  const until = Date.now() + PATIENCE_MS;
  for (;;) {
    const now = await runs();
    const ready = tasks.filter((name) => now[name].last_run_at !== before[name].last_run_at);
    onStep(ready.length);
    if (ready.length === tasks.length) return tasks.map((name) => now[name].last_result?.removed ?? 0);
    if (Date.now() > until) return null;
    await new Promise((next) => setTimeout(next, LOOK_MS));
  }
}

const purge = document.getElementById("purge");
purge?.addEventListener("click", async () => {
  const sure = await confirm({
    title: word("system.js.purge"),
    text: word("system.js.purge_text"),
    action: word("system.js.purge_go"),
    danger: false,
  });
  if (!sure) return;
  const place = document.getElementById("purging");
  const [say, bar] = [place.querySelector("p"), place.querySelector("progress")];
  await busily(purge, async () => {
    place.hidden = false;
    say.textContent = word("system.js.purging");
    bar.value = 0;
    const before = await runs();
    const { tasks } = await post("/api/media/cache/purge");
    const removed = await done(tasks, before, (count) => (bar.value = count));
    const sum = (removed ?? []).reduce((all, one) => all + one, 0);
    say.textContent = removed ? word("system.js.purged", { n: sum }) : word("system.js.purge_slow");
  }, { refused: (problem) => {
    place.hidden = true;
    complain(problem);
  } });
  look();
});
