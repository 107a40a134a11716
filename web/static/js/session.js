// A session that has ended is said, and what was typed stays: one signs in again in another tab and goes on here.
import { toast } from "./toast.js";
import { unsaved } from "./unsaved.js";
import { word } from "./words.js";

const signIn = (next) => `/sign-in?${new URLSearchParams({ ended: 1, next })}`;
const here = () => location.pathname + location.search;
let shown = null;
let told = false;

const make = (tag, given, ...inside) => {
  const made = Object.assign(document.createElement(tag), given);
  made.append(...inside);
  return made;
};

function ask() {
  told = true;
  const heading = make("h2", { id: "session-title", textContent: word("ui.session_ended") });
  const stay = make("button", { className: "button quiet", textContent: word("ui.close") });
  const go = make("a", { className: "button", href: signIn("/"), target: "_blank", textContent: word("ui.sign_in") });
  const actions = make("div", { className: "actions" }, stay, go);
  const text = make("p", { textContent: word("ui.session_ended_text") });
  const dialog = make("dialog", { className: "session" }, make("form", { method: "dialog" }, heading, text, actions));
  dialog.setAttribute("aria-labelledby", heading.id);
  document.body.append(dialog);
  // Every page of somebody who is signed in says so (shell.js).
  const heard = new BroadcastChannel("session");
  heard.onmessage = () => {
    told = false;
    dialog.close();
    toast(word("ui.signed_in_again"));
  };
  return new Promise((done) => {
    dialog.addEventListener("close", () => {
      shown = null;
      heard.close();
      dialog.remove();
      done();
    });
    dialog.showModal();
    go.focus();
  });
}

/** For a call that was refused because nobody is signed in any more; fulfilled when one has read that. */
export const ended = () => (shown ??= ask());

/** For a page that cannot be read any more: it is left for the sign-in, unless that would lose what was typed. */
export function over() {
  if (!unsaved()) location.assign(signIn(here()));
  else if (!told) ended();
}
