// Short messages at the edge of the page, read out by a screen reader; nothing moves for them.
import { reason } from "./words.js";

const LASTS_MS = { good: 4000, failed: 12_000 };

let place = null;

// Within the dialog that is open: all else lies behind it, and can neither be pressed nor read out.
function settle() {
  place ??= document.getElementById("toasts"); // also while it is in a dialog that is taken away
  const dialog = [...document.querySelectorAll("dialog:modal")].at(-1);
  const home = dialog ?? document.body;
  if (place.parentElement === home && place.isConnected) return;
  home.append(place);
  dialog?.addEventListener("close", settle, { once: true });
}

/** Says `text`. `kind`: good or failed (which stays longer, and until it is closed); `link`, `{ href, text }`: where more
 * of it is; it stays longer, too. */
export function toast(text, kind = "good", link = null) {
  settle();
  const message = document.createElement("p");
  message.className = `toast ${kind}`;
  message.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.className = "icon";
  close.ariaLabel = place.dataset.close;
  close.textContent = "×";
  close.onclick = () => message.remove();
  if (link) message.append(Object.assign(document.createElement("a"), { href: link.href, textContent: link.text }));
  message.append(close);
  place.append(message);
  setTimeout(() => message.remove(), LASTS_MS[link ? "failed" : kind] ?? LASTS_MS.good);
}

/** Says what a Problem says; that a session has ended was said already (session.js). */
export function complain(problem) {
  console.debug(problem);
  if (problem.status === 401) return;
  toast(reason(problem), "failed");
}
