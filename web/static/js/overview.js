// Keeps the overview as things are. The strip has fixed places: a picture that comes moves nothing but the others in
// it, and not while somebody is about to click one.
import { watch } from "./live.js";
import { calmly, refresh } from "./refresh.js";
import { word } from "./words.js";

const EVERY_MS = 1500;
const strip = document.querySelector(".strip");
let known = shown();

function shown() {
  return new Set([...document.querySelectorAll(".strip .photo[id]")].map((photo) => photo.id));
}

function mark() {
  for (const photo of strip?.querySelectorAll(".photo[id]") ?? []) photo.classList.toggle("new", !known.has(photo.id));
  known = shown();
}

const look = calmly(() => refresh(mark), EVERY_MS);
let queue = null; // the first is what the page was written with, or nearly

document.addEventListener("live:job", look);
document.addEventListener("live:queue", (event) => {
  const now = JSON.stringify({ ...event.detail, oldest_s: 0 });
  if (queue !== null && now !== queue) look();
  queue = now;
});
watch(look, { stream: strip !== null });

// -- the browser's time zone, where nobody has set one: days and their budgets would begin at UTC's midnight ----------

const KEPT = "photochanger-utc";

function kept(write = null) {
  try {
    if (write) localStorage.setItem(KEPT, write);
    return localStorage.getItem(KEPT);
  } catch {
    return null; // a browser that keeps nothing is asked again
  }
}

function offerZone(offer, zone) {
  const use = document.getElementById("zone-use");
  document.getElementById("zone-text").textContent = word("overview.zone.text", { zone });
  use.textContent = word("overview.zone.use", { zone });
  use.addEventListener("click", async () => {
    use.disabled = true;
    const [{ patch }, { complain, toast }] = await Promise.all([import("./api.js"), import("./toast.js")]);
    try {
      await patch("/api/settings", { time_zone: zone });
      offer.hidden = true;
      toast(word("overview.zone.saved", { zone }));
    } catch (problem) {
      complain(problem);
    }
    use.disabled = false;
  });
  document.getElementById("zone-keep").addEventListener("click", () => {
    kept("kept");
    offer.hidden = true;
  });
  offer.hidden = false;
}

const offer = document.getElementById("zone-offer");
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
if (offer && zone && !["UTC", "Etc/UTC", "GMT", "Etc/GMT"].includes(zone) && !kept()) offerZone(offer, zone);
