// One slot: its form with saving and conflicts, a place to try it, its pictures as they come, what may be done to it.
import { get, patch, post } from "./api.js";
import { busily, stand } from "./busy.js";
import { confirm, giveUp } from "./dialog.js";
import { watch } from "./live.js";
import { calmly, fetched, refresh } from "./refresh.js";
import { routeEditor } from "./route-editor.js";
import { make, mark } from "./schema-form.js";
import { canonical, settle } from "./slot-conflict.js";
import { optionsForm } from "./slot-options.js";
import { picker } from "./template-picker.js";
import { complain, toast } from "./toast.js";
import { trial } from "./trial.js";
import { holds } from "./unsaved.js";
import { reason, spoken, word } from "./words.js";

const EVERY_MS = 1500;
const data = JSON.parse(document.getElementById("slot-data").textContent);
const slotId = data.slot.id;
const address = `/api/slots/${encodeURIComponent(slotId)}`;
const nameField = document.getElementById("slot-name");
const switched = document.getElementById("slot-active");
const pick = picker(data.may_upload);
let base = data.slot; // as the server has it, at the version that is changed
let began = null; // the same, as the form has read it
let route = null;
let options = null;
let saving = false;
let leaving = false;
let tried = null; // the place to try it

// -- the form ---------------------------------------------------------------------------------------------------------

const bar = {
  text: make("span", { className: "grow", role: "status" }),
  discard: make("button", { type: "button", className: "button quiet", textContent: word("slot.discard") }),
  save: make("button", { type: "button", className: "button", textContent: word("slot.save") }),
};
bar.element = make("div", { className: "savebar", hidden: true }, bar.text, bar.discard, bar.save);

const read = () => ({
  name: nameField.value.trim(),
  is_active: switched.checked,
  route: route.read(),
  options: options.read(),
});
const dirty = () => began !== null && canonical(read()) !== canonical(began);

function changed() {
  if (began === null) return;
  tried?.compare();
  const is = dirty();
  if (is && bar.element.hidden) say(word("slot.unsaved"));
  bar.element.hidden = !is;
}

function say(text, kind = "") {
  bar.text.textContent = text;
  bar.text.className = `grow ${kind}`;
}

function build(slot) {
  began = null;
  nameField.value = slot.name;
  switched.checked = slot.is_active;
  route = routeEditor(slot.route, { data, pick, changed });
  options = optionsForm(slot.options, { schema: data.options, changed });
  document.getElementById("route").replaceChildren(route.element);
  document.getElementById("options").replaceChildren(options.element);
  nameField.disabled = switched.disabled = false;
  began = read();
  changed();
}

/** Shows errors at their fields; gives those that have none. */
function showErrors(errors) {
  const all = spoken(errors);
  mark(nameField.closest(".field"), all.find((one) => one.field === "name")?.message);
  const left = options.showErrors(route.showErrors(all.filter((one) => one.field !== "name")));
  const first = document.querySelector(".halves .error:not([hidden])");
  first?.closest("details")?.setAttribute("open", "");
  first?.parentElement.querySelector("input, select, textarea, button")?.focus();
  return left;
}

async function save() {
  if (saving) return;
  const mine = read();
  const parts = Object.keys(mine).filter((name) => canonical(mine[name]) !== canonical(began[name]));
  saving = true;
  bar.save.ariaDisabled = "true"; // a disabled button would lose the focus
  try {
    const changes = Object.fromEntries(parts.map((name) => [name, mine[name]]));
    base = await patch(address, changes, { version: `"${base.version}"` });
    began = mine;
    showErrors([]);
    changed();
    toast(word("slot.saved"));
  } catch (problem) {
    await notSaved(problem, mine);
    return;
  } finally {
    saving = false;
    bar.save.removeAttribute("aria-disabled");
    stand();
  }
  look();
}

async function notSaved(problem, mine) {
  if (problem.code === "version_mismatch") {
    saving = false;
    await conflicting(mine);
    return;
  }
  if (problem.status === 401) {
    say(word("slot.unsaved")); // and nothing more: one has signed in again, or knows
    return;
  }
  const left = showErrors(problem.errors ?? []);
  const own = problem.errors?.length && !left.length;
  const why = left.length ? left.map((one) => `${one.field}: ${one.message}`).join("; ") : reason(problem);
  say(own ? word("slot.see_fields") : why, "bad");
  bar.element.hidden = false;
}

async function conflicting(mine) {
  let theirs;
  try {
    ({ slot: theirs } = await get(`${address}?recent=0`));
  } catch (problem) {
    complain(problem);
    return;
  }
  const { saved } = JSON.parse((await fetched())?.getElementById("slot-data")?.textContent ?? "{}");
  const merged = await settle({ base, began, mine, theirs, saved: saved?.version === theirs.version ? saved : null, data });
  if (!merged) {
    say(word("slot.still_conflict"), "bad");
    return;
  }
  base = theirs;
  build(theirs);
  const theirsRead = began;
  build(merged);
  began = theirsRead; // what differs from theirs is still to be saved
  changed();
  if (dirty()) await save();
  else {
    toast(word("slot.took_theirs"));
    look();
  }
}

// What somebody else has saved meanwhile: shown at once where nothing of ours would be lost.
function adoptNewer(fresh) {
  const block = fresh.getElementById("slot-data");
  if (!block) return;
  const { slot: now, providers } = JSON.parse(block.textContent);
  if (canonical(providers) !== canonical(data.providers)) {
    data.providers = providers; // a key was set meanwhile
    route.providersChanged();
  }
  if (saving || now.version <= base.version || document.querySelector("dialog[open]")) return;
  if (dirty()) say(word("slot.newer"), "bad");
  else {
    base = now;
    build(now);
  }
}

function edit() {
  document.querySelector("main").append(bar.element);
  nameField.addEventListener("input", () => {
    mark(nameField.closest(".field"));
    changed();
  });
  switched.addEventListener("input", changed);
  bar.save.onclick = save;
  bar.discard.onclick = async () => {
    if (!(await giveUp())) return;
    build(base);
    showErrors([]);
    stand();
  };
  holds(() => dirty() && !leaving);
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "s") {
      event.preventDefault();
      if (dirty()) save();
    }
  });
  build(base);
  tried = trial(document.querySelector(".try"), encodeURIComponent(slotId), {
    read: () => ({ route: route.read(), options: options.read() }),
    refused: (errors) => showErrors(errors),
  });
}

// -- what may be done to it -------------------------------------------------------------------------------------------

function go(path) {
  leaving = true;
  location.assign(path);
}

const DEEDS = {
  async duplicate() {
    const title = word("slot.duplicate");
    const asked = { title, text: word("slot.duplicate_saved"), action: title, danger: false };
    if (dirty() && !(await confirm(asked))) return;
    const made = await post(`${address}/duplicate`);
    go(`/slots/${made.id}`);
  },
  async reset() {
    const title = word("slot.reset_title", { name: base.name });
    if (!(await confirm({ title, text: word("slot.reset_text"), action: word("slot.reset") }))) return;
    await post(`${address}/reset-stats`);
    toast(word("slot.reset_done"));
    look();
  },
  async archive() {
    const title = word("slot.archive_title", { name: base.name });
    if (!(await confirm({ title, text: word("slot.archive_text"), action: word("slot.archive") }))) return;
    await post(`${address}/archive`, undefined, { version: `"${base.version}"` });
    go("/slots?state=archived");
  },
  async restore() {
    await post(`${address}/restore`, undefined, { version: `"${base.version}"` });
    location.reload();
  },
};

const rerun = (button) =>
  busily(button, async () => {
    const made = await post(`/api/jobs/${button.dataset.rerun}/rerun`);
    toast(word("slot.rerun_begun"), "good", { href: `/jobs/${made.job_id}`, text: word("slot.rerun_open") });
  }, { refused: (problem) => {
    if (problem.code === "conflict") toast(word("slot.rerun_gone"), "failed");
    else complain(problem);
  } });

async function showQr(button) {
  const dialog = document.getElementById("qr-dialog");
  const drawn = (await fetched(button.dataset.qr))?.querySelector(".qr svg"); // the guest's page has drawn it
  if (!drawn) return toast(word("ui.failed"), "failed");
  dialog.querySelector("figure").replaceChildren(drawn);
  dialog.showModal();
}

document.querySelector("main").addEventListener("click", async (event) => {
  const button = event.target.closest("[data-do], [data-rerun], [data-qr]");
  if (!button) return;
  const menu = button.closest("details.menu");
  if (menu) {
    menu.open = false; // what is asked now goes back to it, not into it
    menu.querySelector("summary").focus();
  }
  if (button.dataset.rerun) await rerun(button);
  else if (button.dataset.qr) await showQr(button);
  else {
    try {
      await DEEDS[button.dataset.do]();
    } catch (problem) {
      complain(problem);
    }
  }
});

const look = calmly(() => refresh(nameField ? adoptNewer : undefined), EVERY_MS);
if (nameField) edit();
if (data.may_watch) {
  document.addEventListener("live:job", (event) => event.detail.slot_id === slotId && look());
  watch(look);
}
