// One job, live, and what may be done with it.
import { calmly, refresh } from "./refresh.js"; // before what changes the page
import { post } from "./api.js";
import { busily } from "./busy.js";
import { compare } from "./compare.js";
import { confirm } from "./dialog.js";
import { watch } from "./live.js";
import { toast } from "./toast.js";
import { word } from "./words.js";

const EVERY_MS = 1000;
const RUNS_MS = 2000;
const id = document.getElementById("job").dataset.job;

const compared = () => document.querySelectorAll(".compare").forEach(compare);
const look = calmly(() => refresh(compared), EVERY_MS);
document.addEventListener("live:job", (event) => event.detail.job_id === id && look());
// What runs fills its time bar.
setInterval(() => !document.hidden && document.querySelector("#job [data-live=actions].runs") && look(), RUNS_MS);
watch(look);

async function cancel() {
  const title = word("job.cancel_title", { id: id.slice(0, 8) });
  const asked = { title, text: word("job.cancel_text"), action: word("job.cancel"), leave: word("job.keep") };
  if (!(await confirm(asked))) return;
  await post(`/api/jobs/${id}/cancel`);
  await refresh(compared, { changed: true });
}

async function rerun() {
  const made = await post(`/api/jobs/${id}/rerun`);
  toast(word("job.rerun_begun"), "good", { href: `/jobs/${made.job_id}`, text: word("job.rerun_open") });
  look();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("#cancel, #rerun");
  if (button) busily(button, button.id === "cancel" ? cancel : rerun);
});
