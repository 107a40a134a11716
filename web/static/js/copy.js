// Copies text. A click on [data-copy] copies the text in the attribute, or of the element that "#id" names (shell.js).
// Plain http has no navigator.clipboard: there the old way does.
import { word } from "./words.js";
import { toast } from "./toast.js";

function oldWay(text) {
  const field = document.createElement("textarea");
  field.value = text;
  field.readOnly = true;
  field.className = "visually-hidden";
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}

/** Puts text on the clipboard; whether that worked. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return oldWay(text);
  }
}

/** Copies what a [data-copy] names, and says so. */
export async function copyFrom(button) {
  const from = button.dataset.copy;
  const source = from.startsWith("#") ? document.querySelector(from) : null;
  const text = source ? (source.value ?? source.textContent).trim() : from;
  if (await copy(text)) toast(word("ui.copied"));
  else toast(word("ui.copy_failed"), "failed");
  button.focus();
}
