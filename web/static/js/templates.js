// Templates: stores those that are dropped, with a line for each file, and deletes them, by name.
import { remove } from "./api.js";
import { confirm } from "./dialog.js";
import { dropzone } from "./dropzone.js";
import { refresh } from "./refresh.js";
import { make } from "./schema-form.js";
import { store } from "./template-picker.js";
import { complain, toast } from "./toast.js";
import { reason, word } from "./words.js";

const zone = document.getElementById("upload-zone");
const uploads = document.getElementById("uploads");

async function bring(file) {
  const bar = make("progress", { max: 1, value: 0, ariaLabel: file.name });
  const preview = make("img", { src: URL.createObjectURL(file), alt: "", width: 48, height: 48 });
  preview.onerror = () => preview.remove();
  const state = make("span", { className: "help", textContent: word("templates.uploading") });
  const line = make("li", { className: "card" }, preview, make("span", { textContent: file.name }), state, bar);
  uploads.append(line);
  const onProgress = (share) => {
    if (share !== null) bar.value = share;
    else {
      bar.removeAttribute("value");
      state.textContent = word("templates.checking");
    }
  };
  try {
    await store(file, { onProgress });
    await refresh(undefined, { changed: true });
    line.remove();
    toast(word("templates.stored", { name: file.name }));
  } catch (problem) {
    bar.remove();
    state.textContent = reason(problem);
    state.className = "bad small-text";
    const close = make("button", { type: "button", className: "icon", textContent: "×", ariaLabel: word("ui.close") });
    close.onclick = () => line.remove();
    line.append(close);
  } finally {
    URL.revokeObjectURL(preview.src);
  }
}

const address = (id, force) => `/api/template-media/${id}${force ? "?force=true" : ""}`;

async function erase(button) {
  const { name, delete: id } = button.dataset;
  const used = button.dataset.used ? button.dataset.used.split("\n") : [];
  const text = used.length ? word("templates.delete_used") : word("templates.delete_text");
  const action = word(used.length ? "templates.delete_anyway" : "templates.delete");
  if (!(await confirm({ title: word("templates.delete_title", { name }), text, items: used, action }))) return;
  try {
    await remove(address(id, used.length > 0));
  } catch (problem) {
    if (problem.code !== "in_use") throw problem;
    const title = word("templates.in_use", { name });
    const text = `${problem.message}. ${word("templates.delete_used")}`;
    const again = { title, text, action: word("templates.delete_anyway") };
    if (!(await confirm(again))) return;
    await remove(address(id, true));
  }
  toast(word("templates.deleted", { name }));
  await refresh(undefined, { changed: true });
}

document.querySelector("main").addEventListener("click", (event) => {
  const button = event.target.closest("[data-delete]");
  if (button) erase(button).catch(complain);
});
if (zone) {
  dropzone(zone, async (files) => {
    for (const file of files) await bring(file);
  });
  zone.hidden = false;
}
