// The settings: what was changed is saved and nothing else; keys and passwords go to the server and are never shown
// again, but for a password that was just made.
import { get, patch, post, put, remove } from "./api.js";
import { busily, stand } from "./busy.js";
import { confirm, giveUp } from "./dialog.js";
import { refresh } from "./refresh.js";
import { schemaForm } from "./schema-form.js";
import { show } from "./time.js";
import { complain, toast } from "./toast.js";
import { holds } from "./unsaved.js";
import { count, number, spoken, word } from "./words.js";

const OUT_OF_BOUNDS = ["greater_than_equal", "less_than_equal", "greater_than", "less_than"];
const NO_NUMBER = ["float_parsing", "int_parsing", "float_type", "int_type", "int_from_float"];

/** What is wrong with a field, in the reader's language where we know its kind. */
function said(error) {
  if (OUT_OF_BOUNDS.includes(error.code)) return word("settings.js.out_of_bounds");
  if (NO_NUMBER.includes(error.code)) return word("settings.js.no_number");
  return spoken([error])[0].message;
}

function showError(box, text) {
  const error = box.querySelector(".error");
  error.textContent = text;
  error.hidden = !text;
  box.classList.toggle("wrong", Boolean(text));
  const control = box.querySelector("input, textarea");
  if (text) control.setAttribute("aria-invalid", "true");
  else control.removeAttribute("aria-invalid");
  return control;
}

function tell(place, kind, ...text) {
  place.className = `message outcome ${kind}`;
  place.replaceChildren(...text);
  place.hidden = false;
}

const element = (tag, textContent) => Object.assign(document.createElement(tag), { textContent });

// -- plain settings ---------------------------------------------------------------------------------------------------

function valueOf(box) {
  const control = box.querySelector("input, textarea");
  if (box.dataset.kind === "check") return control.checked;
  if (box.dataset.kind === "lines") return control.value.split("\n").map((one) => one.trim()).filter(Boolean);
  const text = control.value.trim();
  if (box.dataset.kind !== "number") return text === "" ? null : text;
  if (control.validity.badInput) return "?"; // what is typed is no number: the server says so
  const scale = Number(box.dataset.scale);
  return text === "" ? null : scale === 1 ? Number(text) : Math.round(Number(text) * scale);
}

const controlOf = (box) => box.querySelector("input, textarea");
const typed = ({ value, checked }) => ({ value, checked });

function plain(form) {
  const boxes = [...form.querySelectorAll(".setting")];
  const before = new Map(boxes.map((box) => [box, JSON.stringify(valueOf(box))]));
  const stored = new Map(boxes.map((box) => [box, typed(controlOf(box))]));
  const save = form.querySelector("#save");
  const changed = () => boxes.filter((box) => JSON.stringify(valueOf(box)) !== before.get(box));
  const mark = () => {
    const some = changed();
    for (const box of boxes) box.classList.toggle("changed", some.includes(box));
    if (!save) return;
    form.querySelector("#save-bar").hidden = some.length === 0;
    if (some.length) form.querySelector("#changes").textContent = count("settings.js.changed", some.length);
  };
  form.addEventListener("input", (event) => {
    const box = event.target.closest(".setting");
    if (box) showError(box, "");
    mark();
  });
  const store = async () => {
    const some = changed();
    if (!some.length) return;
    await patch("/api/settings", Object.fromEntries(some.map((box) => [box.dataset.name, valueOf(box)])));
    for (const box of some) {
      before.set(box, JSON.stringify(valueOf(box)));
      stored.set(box, typed(controlOf(box)));
    }
    mark();
    toast(word("settings.js.saved"));
  };
  const refused = (problem) => {
    const wrong = problem.errors.map((error) => [boxes.find((box) => box.dataset.name === error.field.split(".")[0]), error]);
    const placed = wrong.filter(([box]) => box).map(([box, error]) => showError(box, said(error)));
    if (placed.length) placed[0].focus();
    else complain(problem);
    mark();
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    await busily(save, store, { refused });
    mark();
  });
  form.querySelector("#discard")?.addEventListener("click", async () => {
    if (!(await giveUp())) return;
    for (const box of changed()) {
      Object.assign(controlOf(box), stored.get(box));
      showError(box, "");
    }
    mark();
    stand();
  });
  holds(() => save && changed().length > 0);
  const check = form.querySelector("#check-address");
  check?.addEventListener("click", () => busily(check, async () => {
    const place = document.getElementById("checked");
    const address = valueOf(boxes.find((box) => box.dataset.name === "public_base_url"));
    if (!address) return tell(place, "failed", word("settings.js.no_address"));
    tell(place, "", word("settings.js.checking"));
    try {
      tellAddress(place, await post("/api/system/public-address/check", { public_base_url: address }));
    } catch (problem) {
      place.hidden = true;
      throw problem;
    }
  }, { refused }));
  mark();
}

function tellAddress(place, { public_base_url: address, obstacles }) {
  if (!obstacles.length) return tell(place, "good", word("settings.js.reached", { address }));
  const list = document.createElement("ul");
  list.append(...obstacles.map(({ code, values }) => element("li", word(`settings.js.outside.${code}`, values))));
  const box = document.createElement("div");
  box.append(element("strong", word("settings.js.unreached", { address })), list);
  return tell(place, "failed", box);
}

// -- providers --------------------------------------------------------------------------------------------------------

// Shows what has become of a card; what was typed on the page stays.
async function again(text) {
  await refresh(undefined, { changed: true });
  toast(text);
}

const called = (card) => card.querySelector("h2").textContent.trim();

function keys(card, name) {
  const form = card.querySelector("form.key-form");
  const field = form?.querySelector("input");
  if (!field) return;
  const outcome = form.querySelector(".outcome");
  const box = field.closest(".field");
  const refused = (problem) => {
    const ours = problem.errors.find((error) => error.field === "key");
    if (ours) showError(box, word("settings.js.bad_key")).focus();
    else complain(problem);
  };
  field.addEventListener("input", () => {
    showError(box, "");
    outcome.hidden = true;
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!field.value) return void showError(box, word("settings.js.type_key")).focus();
    return busily(form.querySelector("[data-save-key]"), async () => {
      await put(`/api/providers/${name}/key`, { key: field.value });
      field.value = "";
      outcome.hidden = true;
      await again(word("settings.js.key_saved", { name: called(card) }));
    }, { refused });
  });
  const test = form.querySelector("[data-test-key]");
  test.addEventListener("click", () => busily(test, async () => {
    if (!field.value && form.querySelector(".key-state[data-keyless]")) {
      field.focus();
      return tell(outcome, "failed", element("strong", word("settings.js.no_key")), " ", word("settings.js.no_key_text"));
    }
    tell(outcome, "", word("settings.js.testing"));
    try {
      const found = await post(`/api/providers/${name}/test`, { key: field.value || null });
      const took = number(found.seconds, 1);
      if (found.is_accepted) return tell(outcome, "good", word("settings.js.accepted", { took }));
      const words = document.createElement("div");
      words.append(element("strong", word(`failure.${found.failure.code}`)), " ", element("span", found.failure.detail));
      return tell(outcome, "failed", words);
    } catch (problem) {
      outcome.hidden = true;
      throw problem;
    }
  }, { refused }));
  form.addEventListener("click", async (event) => {
    const forget = event.target.closest("[data-delete-key]");
    if (!forget) return;
    const sure = await confirm({
      title: word("settings.js.delete_key", { name: called(card) }),
      text: word("settings.js.delete_key_text"),
      action: word("settings.js.delete"),
    });
    if (!sure) return;
    await busily(forget, async () => {
      await remove(`/api/providers/${name}/key`);
      outcome.hidden = true;
      await again(word("settings.js.key_deleted", { name: called(card) }));
      test.focus();
    });
  });
}

function options(card, name) {
  const form = card.querySelector("form.options-form");
  if (!form) return;
  const { schema, value, silent } = JSON.parse(form.querySelector(".options-data").textContent);
  const made = schemaForm(schema, value);
  form.prepend(made.element);
  const read = () => JSON.stringify(made.read());
  let before = read();
  holds(() => read() !== before);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    busily(form.querySelector("button.button:not(.quiet)"), async () => {
      const [sent, all] = [read(), Object.entries(made.read())];
      const set = all.filter(([key, one]) => JSON.stringify(one) !== JSON.stringify(silent[key]));
      await patch(`/api/providers/${name}`, { options: Object.fromEntries(set) });
      before = sent;
      made.clearErrors();
      toast(word("settings.js.saved"));
    }, { refused: (problem) => {
      const left = made.showErrors(problem.errors.map((error) => ({ ...error, message: said(error) })), "options");
      if (left.length || !problem.errors.length) complain(problem);
    } });
  });
}

for (const card of document.querySelectorAll("[data-provider]")) {
  const name = card.dataset.provider;
  keys(card, name);
  options(card, name);
  card.addEventListener("click", (event) => {
    const reset = event.target.closest("[data-reset]");
    if (!reset) return;
    busily(reset, async () => {
      await post(`/api/providers/${name}/reset`);
      await again(word("settings.js.reset", { name: called(card) }));
      card.querySelector("input, summary")?.focus();
    });
  });
}

// -- the cameras' password --------------------------------------------------------------------------------------------

const rotate = document.getElementById("rotate");
rotate?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const hours = Number(document.getElementById("grace-h").value);
  const sure = await confirm({
    title: word("settings.js.rotate"),
    text: hours ? word("settings.js.rotate_grace") : word("settings.js.rotate_now"),
    action: word("settings.js.make"),
    danger: hours === 0,
  });
  if (!sure) return;
  await busily(rotate.querySelector("button"), async () => {
    const made = await post("/api/settings/ingest-password", { grace_h: hours });
    document.getElementById("made-password").textContent = made.password;
    const { valid } = await get("/api/settings/ingest-password");
    document.getElementById("valid-now").textContent = count("settings.valid", valid);
    const until = made.grace_ends_at ? new Date(made.grace_ends_at) : null;
    const place = document.getElementById("made-grace");
    place.textContent = until ? word("settings.js.old_until") : word("settings.js.old_ended");
    if (until) {
      const time = Object.assign(document.createElement("time"), { dateTime: until.toISOString() });
      time.dataset.time = "day";
      place.append(" ", time);
      show(place);
    }
    document.getElementById("grace")?.remove();
    document.getElementById("made").hidden = false;
    rotate.hidden = true;
  });
});

const end = document.getElementById("end-grace");
end?.addEventListener("click", () =>
  busily(end, async () => {
    const { grace_ends_at: until } = await get("/api/settings/ingest-password");
    const sure = !until || (await confirm({
      title: word("settings.js.end_grace"),
      text: word("settings.js.end_grace_text"),
      action: word("settings.js.end"),
    }));
    if (!sure) return;
    await remove("/api/settings/ingest-password");
    location.reload();
  }));

const form = document.getElementById("settings");
if (form) plain(form);
