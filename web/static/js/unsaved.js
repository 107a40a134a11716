// What was typed and is not saved: asked about before the page is left, and kept where a session ends.
const checks = [];

/** `isDirty` says whether there is something that leaving would lose. */
export const holds = (isDirty) => checks.push(isDirty);

/** Whether leaving now would lose something: also what stands in a dialog. */
export const unsaved = () => checks.some((one) => one()) || document.querySelector("dialog:modal") !== null;

addEventListener("beforeunload", (event) => checks.some((one) => one()) && event.preventDefault());
