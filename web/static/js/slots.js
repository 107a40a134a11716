// The list of slots, each row as it stands now; makes a new one, brings archived ones back.
import { post } from "./api.js";
import { busily } from "./busy.js";
import { watch } from "./live.js";
import { calmly, refresh } from "./refresh.js";
import { mark } from "./schema-form.js";
import { show } from "./time.js";
import { complain } from "./toast.js";
import { reason, spoken, word } from "./words.js";

const EVERY_MS = 3000;

const dialog = document.getElementById("new-slot");
const FIRST = { rungs: [{ provider: "local", operation: "original" }] };

const fields = { name: document.getElementById("new-name"), id: document.getElementById("new-id") };
const told = (name, text = "") => mark(fields[name].closest(".field"), text);

function refused(problem) {
  if (problem.code === "conflict") return told("id", word("slots.id_taken"));
  const errors = spoken(problem.errors).filter((one) => one.field in fields);
  for (const one of errors) told(one.field, one.field === "id" ? word("slots.id_wrong") : one.message);
  if (!errors.length) told("name", reason(problem));
}

async function make() {
  const [name, id] = [fields.name.value.trim(), fields.id.value.trim() || null];
  const made = await post("/api/slots", { id, name, route: FIRST });
  location.assign(`/slots/${made.id}`);
  await new Promise(() => {}); // until it is there, the button stays as it is
}

dialog?.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  for (const name in fields) told(name);
  busily(event.target.querySelector("[type=submit], button:not([type])"), make, {
    refused: (problem) => {
      refused(problem);
      dialog.querySelector("[aria-invalid]")?.focus();
    },
  });
});

document.querySelector("main").addEventListener("click", async (event) => {
  const button = event.target.closest("[data-restore]");
  if (!button) return;
  button.disabled = true;
  try {
    await post(`/api/slots/${button.dataset.restore}/restore`, undefined, { version: `"${button.dataset.version}"` });
    location.assign(`/slots/${button.dataset.restore}`);
  } catch (problem) {
    complain(problem);
    button.disabled = false;
  }
});

// Rows come and go only while nobody is at the list.
function rows(fresh) {
  const [old, now] = [document, fresh].map((one) => one.querySelector("main tbody"));
  const ids = (body) => [...(body?.rows ?? [])].map((row) => row.dataset.slot).join();
  if (!old || !now || ids(old) === ids(now) || old.matches(":hover") || old.contains(document.activeElement)) return;
  old.replaceWith(now);
  show(now);
}

const look = calmly(() => refresh(rows), EVERY_MS);
document.addEventListener("live:job", look);
watch(look);

if (location.hash === "#new") {
  history.replaceState(null, "", "/slots");
  dialog?.showModal();
}
