// A window for guests: made longer, closed at once, by name. Where it is looked at, it is read anew until it is over.
import { patch, remove } from "./api.js";
import { confirm } from "./dialog.js";
import { watch } from "./live.js";
import { refresh } from "./refresh.js";
import { serverNow, show } from "./time.js";
import { complain, toast } from "./toast.js";
import { word } from "./words.js";

const EVERY_MS = 5000;
const HOUR_MS = 3_600_000;

async function close(button) {
  const name = button.dataset.name;
  const sure = await confirm({
    title: word("gallery.close_title", { what: name }),
    text: word("gallery.close_text"),
    action: word("gallery.close"),
  });
  if (!sure) return undefined;
  button.disabled = true;
  try {
    await remove(`/api/gallery-shares/${button.dataset.closeShare}`);
    const line = button.closest("li");
    if (!line) return location.reload();
    line.remove();
    toast(word("gallery.closed", { what: name }));
    await refresh();
  } catch (problem) {
    button.disabled = false;
    complain(problem);
  }
  return undefined;
}

async function extend(button) {
  button.disabled = true;
  try {
    const expires_at = new Date(Date.parse(button.dataset.ends) + HOUR_MS).toISOString();
    const share = await patch(`/api/gallery-shares/${button.dataset.extendShare}`, { expires_at });
    button.dataset.ends = share.expires_at;
    for (const time of document.querySelectorAll(".share-state dd time")) {
      time.dateTime = share.expires_at; // under the pointer nothing is read anew
      delete time.dataset.server;
    }
    show();
    toast(word("gallery.extended"));
  } catch (problem) {
    complain(problem);
  }
  button.disabled = false;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-close-share], [data-extend-share]");
  if (button) (button.dataset.extendShare ? extend : close)(button);
});

// What ends by itself is read anew then; what somebody else closes, a little later.
const ending = () =>
  [...document.querySelectorAll("time[data-time=countdown]")].some((time) => Date.parse(time.dateTime) <= serverNow());
let lookedAt = Date.now();
function look() {
  lookedAt = Date.now();
  refresh();
}
setInterval(() => {
  if (document.hidden || !document.querySelector("time[data-time=countdown]")) return;
  if (ending() || Date.now() - lookedAt >= EVERY_MS) look();
}, 1000);
if (document.querySelector(".share-state")) watch(look, { stream: false });
