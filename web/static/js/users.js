// Accounts: made, changed, switched off; a password that was made is shown once.
import { patch, post } from "./api.js";
import { confirm } from "./dialog.js";
import { fetched, refresh } from "./refresh.js";
import { show } from "./time.js";
import { complain, toast } from "./toast.js";
import { word } from "./words.js";

const chosen = (form) => [...form.querySelectorAll("[name=permission]:checked")].map((box) => box.value);

/** A refusal where it belongs, in the reader's language where we know which it is. */
function refused(form, problem) {
  const place = form.querySelector(".permissions .error");
  const say = (text) => {
    place.textContent = text;
    place.hidden = false;
    place.scrollIntoView({ block: "nearest" });
  };
  const name = form.querySelector("[data-field=name]");
  const wrong = problem.errors.some((error) => error.field === "name");
  if (name && (wrong || problem.code === "conflict")) {
    const error = name.querySelector(".error");
    error.textContent = wrong ? word("users.js.bad_name") : word("users.js.taken");
    error.hidden = false;
    name.classList.add("wrong");
    name.querySelector("input").focus();
  } else if (problem.code === "conflict") say(word("users.js.last"));
  else complain(problem);
}

function showPassword(title, password) {
  document.getElementById("made-title").textContent = title;
  document.getElementById("made-password").textContent = password;
  const place = document.getElementById("made");
  place.hidden = false;
  place.scrollIntoView({ block: "center" });
  place.querySelector("[data-copy]").focus();
}

/** What every form here does, in `root`. */
function prepare(root) {
  for (const button of root.querySelectorAll("[data-preset]")) {
    const some = button.dataset.preset.split(" ");
    button.addEventListener("click", () => {
      for (const box of button.closest("form").querySelectorAll("[name=permission]")) box.checked = some.includes(box.value);
    });
  }
  for (const form of root.querySelectorAll("form.change, form.make")) {
    form.addEventListener("input", () => {
      for (const error of form.querySelectorAll(".error")) error.hidden = true;
      for (const box of form.querySelectorAll(".wrong")) box.classList.remove("wrong");
    });
  }
}
prepare(document);

function serve(person) {
  const name = person.dataset.user;
  const path = `/api/users/${encodeURIComponent(name)}`;
  const form = person.querySelector("form.change");
  const change = async (changes) => {
    try {
      await patch(path, changes);
      return true;
    } catch (problem) {
      refused(form, problem);
      return false;
    }
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await change({ permissions: chosen(form) })) toast(word("users.js.saved"));
  });
  person.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-disable], [data-enable]");
    if (!button) return;
    const on = button.matches("[data-enable]");
    const sure = on || (await confirm({
      title: word("users.js.disable", { name }),
      text: word("users.js.disable_text"),
      action: word("users.js.disable_go"),
    }));
    if (!sure || !(await change({ is_active: on }))) return;
    await refresh(undefined, { changed: true });
    toast(on ? word("users.js.enabled", { name }) : word("users.js.disabled", { name }));
  });
  person.querySelector("[data-password]").addEventListener("click", async () => {
    const sure = await confirm({
      title: word("users.js.password", { name }),
      text: word("users.js.password_text"),
      action: word("users.js.password_go"),
    });
    if (!sure) return;
    try {
      const made = await post(`${path}/password`, {});
      showPassword(word("users.js.password_of", { name }), made.password);
    } catch (problem) {
      complain(problem);
    }
  });
  person.querySelector("[data-sign-out]").addEventListener("click", async () => {
    const sure = await confirm({
      title: word("users.js.sign_out", { name }),
      text: word("users.js.sign_out_text"),
      action: word("users.js.sign_out_go"),
      danger: false,
    });
    if (!sure) return;
    try {
      await post(`${path}/sign-out`);
      toast(word("users.js.signed_out", { name }));
    } catch (problem) {
      complain(problem);
    }
  });
}

document.querySelectorAll("[data-user]").forEach(serve);

/** Puts somebody who was just made into the list; the page cannot be read anew, it shows their password. */
async function add(name) {
  const now = [...((await fetched())?.querySelectorAll("[data-user]") ?? [])];
  const at = now.findIndex((one) => one.dataset.user === name);
  const list = document.getElementById("people");
  if (at < 0 || list.querySelector(`[data-user="${CSS.escape(name)}"]`)) return;
  const before = now.slice(at + 1).map((one) => list.querySelector(`[data-user="${CSS.escape(one.dataset.user)}"]`));
  const person = document.adoptNode(now[at]);
  list.insertBefore(person, before.find(Boolean) ?? null);
  show(person);
  prepare(person);
  serve(person);
}

const made = document.querySelector("form.make");
made.addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = document.getElementById("new-name").value.trim();
  const language = document.getElementById("new-language").value || null;
  try {
    const answer = await post("/api/users", { name, language, permissions: chosen(made) });
    made.closest("dialog").close();
    made.reset();
    showPassword(word("users.js.created", { name: answer.account.name }), answer.password);
    await add(answer.account.name);
  } catch (problem) {
    refused(made, problem);
  }
});
