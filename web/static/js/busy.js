// What a button does, once at a time; and whoever goes by the keyboard is not thrown back to the page's begin by it.
import { complain } from "./toast.js";

// What has just been hidden keeps the focus until the page is drawn.
const lost = () => [null, document.body].includes(document.activeElement) || !document.activeElement.checkVisibility();

/** Where nothing has the focus, the first of `places` that can take it gets it, else the page's own part. */
export function stand(...places) {
  for (const place of [...places, document.getElementById("main")]) {
    if (!lost()) return;
    place?.focus({ preventScroll: true });
  }
}

/**
 * Runs what a button does, once at a time; a refusal is said, or given to `refused`. Meanwhile the button keeps the
 * focus; where it has gone then, `next` gets that.
 */
export async function busily(button, work, { refused = complain, next = null } = {}) {
  if (button.disabled || button.ariaDisabled === "true") return;
  const stood = document.activeElement !== document.body;
  button.ariaDisabled = "true";
  button.classList.add("busy");
  try {
    await work();
  } catch (problem) {
    refused(problem);
  } finally {
    button.removeAttribute("aria-disabled");
    button.classList.remove("busy");
    if (stood) stand(next);
  }
}
