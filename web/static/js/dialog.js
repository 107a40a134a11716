// Asks before something is destroyed, by name; Escape and the first button leave everything as it is.
import { word } from "./words.js";

function button(text, className, value) {
  const made = document.createElement("button");
  made.className = className;
  made.value = value;
  made.textContent = text;
  return made;
}

/**
 * Whether one really wants to. `title` asks, `text` says what will happen and what cannot be undone, `action` is the
 * word on the button, `leave` on the other; `items` are named in a list; `danger: false` for what can be undone.
 */
export function confirm({ title, text = "", items = [], action, leave = word("ui.leave"), danger = true }) {
  const dialog = document.createElement("dialog");
  const form = document.createElement("form");
  form.method = "dialog";
  const heading = document.createElement("h2");
  heading.textContent = title;
  heading.id = "dialog-title";
  dialog.setAttribute("aria-labelledby", heading.id);
  const words = document.createElement("p");
  words.textContent = text;
  const list = document.createElement("ul");
  list.append(...items.map((item) => Object.assign(document.createElement("li"), { textContent: item })));
  const buttons = document.createElement("div");
  buttons.className = "actions";
  buttons.append(button(leave, "button quiet", ""), button(action, danger ? "button danger" : "button", "yes"));
  form.append(heading, words, ...(items.length ? [list] : []), buttons);
  dialog.append(form);
  document.body.append(dialog);
  return new Promise((done) => {
    dialog.addEventListener("close", () => {
      done(dialog.returnValue === "yes");
      dialog.remove();
    });
    dialog.showModal();
  });
}

/** Whether what was changed and not saved shall be given up. */
export const giveUp = () =>
  confirm({
    title: word("ui.discard_title"),
    text: word("ui.discard_text"),
    action: word("ui.discard"),
    leave: word("ui.discard_not"),
  });
