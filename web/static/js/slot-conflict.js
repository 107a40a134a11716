// Two have changed one slot: what differs is shown side by side, and one says what shall be.
import { make, optionWord, titled } from "./schema-form.js";
import { show } from "./time.js";
import { LANGUAGE, word } from "./words.js";

const OPTIONS = ["keep_late_result", "join_duplicates", "on_disconnect", "answer", "budget_per_day", "budget_period"];

const PERIOD = ["name", "begins_at", "ends_at", "amount"];
const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d/;

/** A value as text that is the same for the same value, in whatever order its members stand. */
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (value && typeof value === "object") {
    const names = Object.keys(value).filter((name) => value[name] !== undefined).sort();
    return `{${names.map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join()}}`;
  }
  if (typeof value === "string" && INSTANT.test(value)) return String(Date.parse(value));
  return JSON.stringify(value ?? null);
}

// The same on both sides, whichever has written its members in which order.
function inOrder(value, names) {
  const place = (name) => (names.includes(name) ? names.indexOf(name) : names.length);
  return Object.entries(value).sort(([one], [other]) => place(one) - place(other) || one.localeCompare(other));
}

function plain(value) {
  if (value === null || value === undefined || value === "") return word("ui.not_set");
  if (typeof value === "boolean") return word(value ? "slot.yes" : "slot.no");
  if (Array.isArray(value)) return value.length ? value.map(plain).join(", ") : word("ui.not_set");
  if (typeof value === "object") return inOrder(value, PERIOD).map(([, one]) => plain(one)).join(", ");
  if (typeof value === "number") return value.toLocaleString(LANGUAGE, { maximumFractionDigits: 6 });
  if (typeof value === "string" && INSTANT.test(value)) {
    return new Date(value).toLocaleString(LANGUAGE, { dateStyle: "medium", timeStyle: "short" });
  }
  return optionWord(value);
}

function rungText(rung, at, data) {
  const provider = data.providers.find((one) => one.name === rung.provider);
  const operation = provider?.operations.find((one) => one.name === rung.operation);
  const lines = inOrder(rung.settings, Object.keys(operation?.schema.properties ?? {}))
    .filter(([, value]) => value !== null && value !== "" && value !== false)
    .map(([name, value]) => {
      const own = operation?.schema.properties[name]?.title ?? name;
      return `${titled(rung.operation, name, own)}: ${plain(value)}`;
    });
  const call = ["timeout_s", "max_tries", "pause_s", "on_refusal"]
    .filter((name) => rung[name] !== null && rung[name] !== undefined)
    .map((name) => `${titled("", name, name)}: ${plain(rung[name])}`);
  return [`${at + 1}. ${provider?.title ?? rung.provider} · ${operation?.title ?? rung.operation}`, ...lines, ...call].join("\n");
}

function parts(data) {
  const option = (name) => ({
    title: name === "budget_period" ? word("slot.period") : titled("", name, name),
    get: (slot) => slot.options[name],
    set: (slot, value) => (slot.options[name] = value),
    text: plain,
  });
  return [
    { title: word("slot.name"), get: (slot) => slot.name, set: (slot, value) => (slot.name = value), text: plain },
    {
      title: word("slot.is_active"),
      get: (slot) => slot.is_active,
      set: (slot, value) => (slot.is_active = value),
      text: plain,
    },
    {
      title: word("slot.route"),
      get: (slot) => slot.route.rungs,
      set: (slot, value) => (slot.route.rungs = value),
      text: (rungs) => rungs.map((one, at) => rungText(one, at, data)).join("\n\n"),
    },
    {
      title: titled("", "hedge", "hedge"),
      get: (slot) => slot.route.hedge,
      set: (slot, value) => (slot.route.hedge = value),
      text: plain,
    },
    ...OPTIONS.map(option),
  ];
}

// What stands on both sides is no news.
function side(name, value, chosen, title, text, other) {
  const radio = make("input", { type: "radio", name, value, checked: chosen });
  const head = make("span", { className: "strong", textContent: title });
  const which = make("span", { className: "which" }, radio, head);
  const there = new Set(other.split("\n"));
  const lines = text.split("\n").map((line) => make("span", { className: there.has(line) ? "same" : "", textContent: `${line}\n` }));
  return make("label", { className: "side-of" }, which, make("span", { className: "said" }, ...lines));
}

function savedBy({ by, at }) {
  const time = make("time", { dateTime: at });
  time.dataset.time = "day";
  const told = make("p", { className: "help" }, `${word("slot.conflict_by", { name: by })}, `, time);
  show(told);
  return told;
}

/**
 * Asks what shall be of what differs between `mine` and `theirs`; `base` is what both began with, `began` the same as
 * the form read it; `saved`, `{ by, at }`: who has saved theirs, and when, where that is known. Gives the slot to be saved over theirs, or null where one goes back to one's form.
 */
export function settle({ base, began, mine, theirs, saved, data }) {
  const differing = parts(data).filter((one) => canonical(one.get(mine)) !== canonical(one.get(theirs)));
  const real = differing.filter(
    (one) =>
      canonical(one.get(mine)) !== canonical(one.get(began)) || canonical(one.get(theirs)) !== canonical(one.get(base)),
  );
  const { name, is_active, route, options } = theirs;
  const merged = structuredClone({ name, is_active, route, options });
  if (!real.length) return Promise.resolve(merged);
  const heading = make("h2", { id: "conflict-title", textContent: word("slot.conflict") });
  const text = make("p", { textContent: word("slot.conflict_text") });
  const who = saved ? savedBy(saved) : null;
  const rows = real.map((one, at) => {
    const isMine = canonical(one.get(mine)) !== canonical(one.get(began));
    const [ours, others] = [one.text(one.get(mine)), one.text(one.get(theirs))];
    const sides = make(
      "div",
      { className: "sides" },
      side(`part-${at}`, "mine", isMine, word("slot.mine"), ours, others),
      side(`part-${at}`, "theirs", !isMine, word("slot.theirs"), others, ours),
    );
    return make("fieldset", { className: "part" }, make("legend", { textContent: one.title }), sides);
  });
  const actions = make(
    "div",
    { className: "actions" },
    make("button", { className: "button quiet", value: "", textContent: word("slot.back") }),
    make("button", { className: "button", value: "yes", textContent: word("slot.save_choice") }),
  );
  const form = make("form", { method: "dialog" }, heading, text, who, ...rows, actions);
  const dialog = make("dialog", { className: "large conflict" }, form);
  dialog.setAttribute("aria-labelledby", heading.id);
  document.body.append(dialog);
  return new Promise((done) => {
    dialog.addEventListener("close", () => {
      real.forEach((one, at) => {
        const from = form.elements[`part-${at}`].value === "mine" ? mine : theirs;
        one.set(merged, structuredClone(one.get(from)));
      });
      done(dialog.returnValue === "yes" ? merged : null);
      dialog.remove();
    });
    dialog.showModal();
  });
}
