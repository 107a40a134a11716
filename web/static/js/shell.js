// What every page of the frame has: times, copy buttons, dialogs, lightboxes, the account's menu and its language. What
// is seldom needed is loaded when it is.
import "./time.js";

// Until this the page's own modules have not run, and what only they can do is not to be clicked (app.css).
addEventListener("DOMContentLoaded", () => (document.documentElement.dataset.ready = ""));

// Loaded anew while a lightbox was open: its place in the history is given back.
if (history.state?.lightbox) history.back();

// Other tabs may wait for somebody to sign in again (session.js).
new BroadcastChannel("session").postMessage("in");

// Rows that are wider than the page begin with where one is; the page itself stays.
for (const row of document.querySelectorAll(".side, .tabs, .choices")) {
  const here = row.querySelector("[aria-current]");
  if (!here) continue;
  const [whole, one] = [row, here].map((box) => box.getBoundingClientRect());
  row.scrollLeft += one.left + one.width / 2 - whole.left - whole.width / 2;
}

document.addEventListener("click", (event) => {
  const target = event.target.closest ? event.target : document.body;
  const plain = !(event.ctrlKey || event.metaKey || event.shiftKey);
  const link = target.closest("[data-lightbox] a[href][data-caption]");
  if (link && plain) {
    event.preventDefault();
    import("./lightbox.js").then((lightbox) => lightbox.open(link));
  }
  const copied = target.closest("[data-copy]");
  if (copied) import("./copy.js").then(({ copyFrom }) => copyFrom(copied));
  const opener = target.closest("[data-opens]"); // <button data-opens="id"> opens the <dialog> of that id
  if (opener) document.getElementById(opener.dataset.opens)?.showModal();
  const dialog = target.closest("dialog");
  if (dialog && (target === dialog || target.closest("[data-closes]"))) dialog.close();
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(target)) menu.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && document.querySelector("details.menu[open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});

for (const choice of document.querySelectorAll("[data-language]")) {
  choice.addEventListener("click", async () => {
    const [{ patch }, { complain }] = await Promise.all([import("./api.js"), import("./toast.js")]);
    try {
      await patch("/api/me", { language: choice.dataset.language || null });
      location.reload();
    } catch (problem) {
      complain(problem);
    }
  });
}
