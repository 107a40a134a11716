// Tries a slot as its form stands: sends a photo, says how far it is, and shows what came of it beside the photo.
import { compare } from "./compare.js";
import { dropzone, upload } from "./dropzone.js";
import { make } from "./schema-form.js";
import { canonical } from "./slot-conflict.js";
import { knows, money, number, word } from "./words.js";

const TICK_MS = 100;
const seconds = (value) => word("unit.s", { n: number(value, value < 10 ? 1 : 0) });
const failure = (code) => (knows(`failure.${code}`) ? word(`failure.${code}`) : code);
const PROVIDERS = JSON.parse(document.getElementById("slot-data").textContent).providers;
const here = (link) => {
  const { pathname, search } = new URL(link);
  return pathname + search;
};

function fact(title, value, className = "") {
  return make("div", { className }, make("dt", { textContent: title }), make("dd", { textContent: value }));
}

/** What people call a "provider/operation". */
function called(kind) {
  const [name, work] = kind.split("/");
  const provider = PROVIDERS.find((one) => one.name === name);
  const operation = provider?.operations.find((one) => one.name === work);
  return `${provider?.title ?? name} · ${operation?.title ?? work}`;
}

function attempt(one) {
  const model = one.model ? ` · ${one.model}` : "";
  const took = one.seconds === null ? "" : ` · ${seconds(one.seconds)}`;
  const cost = one.cost ? ` · ${money(one.cost)}` : "";
  const light = make("span", { className: `light ${one.cause ? "failed" : "good"}`, ariaHidden: "true" });
  const head = make("span", { textContent: called(`${one.provider}/${one.operation}`) + model + took + cost });
  const reason = one.cause && [failure(one.cause), one.detail].filter(Boolean).join(": ");
  const why = reason ? make("span", { className: "help", textContent: reason }) : null;
  return make("li", {}, light, make("span", { className: "attempt" }, head, why));
}

function pictures(before, run) {
  const after = make("img", { src: `${here(run.result.url)}&size=1280`, alt: word("slot.after") });
  const photo = make("img", { src: before, alt: word("slot.before") });
  const frame = make("div", { className: "compare" }, photo, after);
  frame.style.aspectRatio = `${run.result.width} / ${run.result.height}`;
  compare(frame);
  photo.onerror = () => {
    // a kind of photo that browsers do not show, like HEIC: then there is only what came of it
    frame.replaceWith(make("div", { className: "photo whole" }, after));
  };
  return frame;
}

function message(title, text) {
  const words = make("div", {}, make("strong", { textContent: title }), text ? make("p", { textContent: text }) : null);
  return make("div", { className: "message failed", role: "alert" }, words);
}

function outcome(before, run) {
  const model = run.attempts.at(-1)?.model;
  const servedBy = run.served_by && [called(run.served_by), model].filter(Boolean).join(" · ");
  const facts = make(
    "dl",
    { className: "facts" },
    fact(word("slot.took"), seconds(run.seconds)),
    fact(word("slot.cost"), money(run.cost)),
    servedBy ? fact(word("slot.served_by"), servedBy, "whole") : null,
  );
  const wentStraight = run.served_by && run.attempts.length < 2; // then the facts have said it all
  const list = wentStraight ? null : make("ol", { className: "attempts" }, ...run.attempts.map(attempt));
  const more = make("a", { href: `/jobs/${run.job_id}`, textContent: word("ui.details"), className: "small-text" });
  const first = run.result ? pictures(before, run) : message(failure(run.failure?.code), run.failure?.detail ?? "");
  return [first, facts, list, make("p", {}, more)].filter(Boolean);
}

/**
 * Makes the section work. `read` gives what is to be tried, `refused` gets the errors of a form that is wrong. Gives
 * `{ compare() }`, to be called when the form has changed: what came of another one says so.
 */
export function trial(section, slotId, { read, refused }) {
  const place = section.querySelector("#trial");
  const zone = section.querySelector("#try-zone");
  const input = zone.querySelector("input");
  const again = make("button", { type: "button", className: "button quiet small", textContent: word("slot.try_again") });
  const text = make("span", { className: "grow", textContent: word("slot.try_old") });
  const old = make("div", { className: "message waiting small-text", hidden: true, role: "status" }, text, again);
  let before = null;
  let last = null; // the photo that was tried, and with what
  again.onclick = () => run(last.file);
  place.before(old);

  function compareForms() {
    old.hidden = !last || input.disabled || canonical(read()) === last.form;
  }

  /** Shows something else; who stood on what goes stands on the choice of a photo. */
  function show(...elements) {
    const stoodHere = place.contains(document.activeElement) || document.activeElement === again;
    place.replaceChildren(...elements);
    place.hidden = false;
    compareForms();
    if (stoodHere) input.focus({ preventScroll: true });
  }

  async function run(file) {
    const bar = make("progress", { max: 1, value: 0, ariaLabel: word("slot.uploading") });
    const text = make("p", { className: "help grow", role: "status", textContent: word("slot.uploading") });
    const ticking = make("p", { className: "running-s", ariaHidden: "true" });
    const stop = make("button", { type: "button", className: "button quiet small", textContent: word("slot.try_stop") });
    const stopping = new AbortController();
    stop.onclick = () => stopping.abort(); // hanging up cancels the job
    const tried = read();
    last = null;
    input.disabled = true;
    show(bar, make("div", { className: "actions" }, text, stop), ticking);
    stop.focus();
    const form = new FormData();
    form.append("overrides", JSON.stringify(tried));
    form.append("fileToUpload", file);
    let began = null;
    const timer = setInterval(() => {
      if (began !== null) ticking.textContent = seconds((performance.now() - began) / 1000);
    }, TICK_MS);
    const onProgress = (share) => {
      if (share === null) {
        began = performance.now();
        bar.removeAttribute("value");
        text.textContent = word("slot.running");
      } else bar.value = share;
    };
    let shown;
    try {
      const { value } = await upload(`/api/slots/${slotId}/test-run`, form, { onProgress, signal: stopping.signal });
      if (before) URL.revokeObjectURL(before);
      before = URL.createObjectURL(file);
      shown = outcome(before, value);
      last = { file, form: canonical(tried) };
      refused([]);
    } catch (problem) {
      if (problem.name === "AbortError") shown = [make("p", { className: "help", textContent: word("slot.try_stopped") })];
      else {
        const left = refused(problem.errors ?? []);
        const own = problem.message === problem.title ? "" : problem.message;
        const why = problem.errors?.length && !left.length ? word("slot.see_fields") : own;
        shown = [message(knows(`failure.${problem.code}`) ? failure(problem.code) : word("ui.failed"), why)];
      }
    } finally {
      clearInterval(timer);
      input.disabled = false;
    }
    show(...shown);
  }
  dropzone(zone, ([file]) => input.disabled || run(file));
  section.hidden = false;
  return { compare: compareForms };
}
