// Shows the templates that a setting names, and lets one choose others: those that are there, or a new one by dropping
// its file.
import { get } from "./api.js";
import { dropzone, upload } from "./dropzone.js";
import { make } from "./schema-form.js";
import { complain } from "./toast.js";
import { word } from "./words.js";

const PAGE = 200;
const picture = (id, size) => `/api/template-media/${id}/picture?size=${size}`;
let known = null;

async function all() {
  if (known) return known;
  const found = [];
  let after = "";
  do {
    const page = await get(`/api/template-media?limit=${PAGE}${after && `&after=${encodeURIComponent(after)}`}`);
    found.push(...page.items);
    after = page.next ?? "";
  } while (after);
  known = found;
  return known;
}

/** Stores a file as a template; gives what the server made of it. */
export async function store(file, options) {
  const form = new FormData();
  form.append("name", file.name.replace(/\.[^.]+$/, "").slice(0, 120) || file.name);
  form.append("fileToUpload", file);
  const { value } = await upload("/api/template-media/register", form, options);
  known?.unshift(value);
  return value;
}

function tile(template, chosen) {
  const image = make("img", { src: picture(template.id, 160), alt: "", loading: "lazy" });
  const name = make("span", { textContent: template.name });
  const one = make("button", { type: "button", className: "choice" }, image, name);
  one.setAttribute("aria-pressed", chosen);
  one.dataset.template = template.id;
  return one;
}

function zone() {
  const input = make("input", { type: "file", accept: "image/*", ariaLabel: word("picker.drop") });
  const text = make("span", { textContent: word("picker.drop") });
  const kinds = make("span", { className: "help", textContent: word("templates.kinds") });
  return make("label", { className: "dropzone" }, text, kinds, input);
}

function button(text, className, value) {
  return make("button", { textContent: text, className, value });
}

/** The dialog; gives the ids that were chosen, or null where nothing was to change. */
async function choose(chosen, { several, most = 1, mayUpload }) {
  let found;
  try {
    found = await all();
  } catch (problem) {
    complain(problem);
    return null;
  }
  const picked = new Set(chosen);
  const heading = make("h2", { id: "picker-title", textContent: word("picker.title") });
  const grid = make("div", { className: "choices-of" });
  const none = make("p", { className: "quiet-text", textContent: word("picker.none") });
  const bar = make("progress", { hidden: true, max: 1, ariaLabel: word("picker.uploading") });
  const leave = button(word("ui.leave"), "button quiet", "");
  const actions = make("div", { className: "actions" }, leave, button(word("picker.use"), "button", "yes"));
  const drop = mayUpload ? zone() : null;
  const inside = make("form", { method: "dialog" }, heading, drop, bar, none, grid, actions);
  const dialog = make("dialog", { className: "large picker" }, inside);
  dialog.setAttribute("aria-labelledby", heading.id);
  const show = () => {
    none.hidden = found.length > 0;
    grid.replaceChildren(...found.map((one) => tile(one, picked.has(one.id))));
  };
  const toggle = (id) => {
    if (picked.has(id)) picked.delete(id);
    else {
      if (!several) picked.clear();
      if (!several || picked.size < most) picked.add(id);
    }
    for (const one of grid.children) one.setAttribute("aria-pressed", picked.has(one.dataset.template));
  };
  grid.addEventListener("click", (event) => {
    const one = event.target.closest("[data-template]");
    if (one) toggle(one.dataset.template);
  });
  if (drop) {
    dropzone(drop, async ([file]) => {
      bar.hidden = false;
      try {
        const onProgress = (share) => (share === null ? bar.removeAttribute("value") : (bar.value = share));
        const made = await store(file, { onProgress });
        show();
        if (!picked.has(made.id)) toggle(made.id);
      } catch (problem) {
        complain(problem);
      } finally {
        bar.hidden = true;
      }
    });
  }
  show();
  document.body.append(dialog);
  return new Promise((done) => {
    dialog.addEventListener("close", () => {
      done(dialog.returnValue === "yes" ? [...picked] : null);
      dialog.remove();
    });
    dialog.showModal();
  });
}

async function show(ids, name, remove) {
  const names = new Map();
  if (ids.length) for (const one of await all().catch(() => [])) names.set(one.id, one.name);
  return ids.map((id) => {
    const gone = known !== null && !names.has(id);
    const title = gone ? word("picker.gone") : (names.get(id) ?? "");
    const image = gone ? null : make("img", { src: picture(id, 160), alt: "", width: 64, height: 64 });
    const ariaLabel = `${word("ui.remove")}: ${title}`;
    const off = make("button", { type: "button", className: "icon", textContent: "×", ariaLabel });
    off.onclick = () => remove(id);
    const said = make("span", { textContent: title });
    return make("span", { className: gone ? "taken gone" : "taken" }, image, said, off);
  });
}

/** What schema-form.js shows and chooses templates with. */
export const picker = (mayUpload) => ({ show, choose: (chosen, how) => choose(chosen, { ...how, mayUpload }) });
