// Has a backup made, and shows how far it is; also one that somebody else or the night has begun.
import { get, post } from "./api.js";
import { busily } from "./busy.js";
import { refresh } from "./refresh.js";
import { complain } from "./toast.js";
import { word } from "./words.js";

const PATH = "/api/system/backups";
const LOOK_MS = 700;
const button = document.getElementById("back-up");
const place = document.getElementById("backing-up");
const [say, bar] = [place.querySelector("p"), place.querySelector("progress")];

/** Shows how far it is until it has ended; `now`: how it stands. */
async function follow(now) {
  const before = now.items[0]?.name;
  place.hidden = bar.hidden = false;
  while (now.running) {
    const { written_bytes: written, expected_bytes: expected } = now.running;
    bar.max = Math.max(expected, written, 1);
    bar.value = written;
    say.textContent = word("backups.js.running", { percent: Math.min(99, Math.floor((100 * written) / bar.max)) });
    await new Promise((next) => setTimeout(next, LOOK_MS));
    now = await get(PATH);
  }
  bar.hidden = true;
  say.textContent = now.failure || now.items[0]?.name === before ? word("backups.js.failed") : word("backups.js.done");
  refresh(undefined, { changed: true });
}

const begin = (first) =>
  busily(button ?? place, async () => follow(await first()), {
    refused: (problem) => {
      place.hidden = true;
      complain(problem);
    },
  });

button?.addEventListener("click", () => begin(() => post(PATH)));
if (!place.hidden) begin(() => get(PATH));
