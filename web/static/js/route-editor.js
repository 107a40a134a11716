// The rungs of a route as forms: added, removed, put in another order, each with the settings of its operation.
import { make, mark, schemaForm } from "./schema-form.js";
import { word } from "./words.js";

/** Settings that mean the same to every provider: they are kept when one chooses another. */
const SHARED = new Set(["output", "send_edge", "prompt", "template", "templates", "caption"]);
/** Settings that take what the chosen model offers, and how its entry in the catalogue names that. */
const OF_MODEL = { aspect_ratio: "aspect_ratios", image_size: "image_sizes", size: "sizes" };
let ids = 0;

/** A schema with what the model of `value` offers; what is set already stays to be chosen. */
function offered(schema, models, value) {
  const names = Object.keys(models);
  if (!names.length || !schema.properties.model) return schema;
  const properties = { ...schema.properties };
  const model = value.model ?? properties.model.default;
  properties.model = { ...properties.model, enum: names.includes(model) ? names : [...names, model] };
  for (const [name, list] of Object.entries(OF_MODEL)) {
    const some = models[model]?.[list];
    if (!some || !properties[name]) continue;
    const anyOf = [{ type: "string", enum: some }, { type: "null" }];
    if (some.length) properties[name] = { ...properties[name], anyOf };
    else delete properties[name];
  }
  return { ...schema, properties };
}

function labelled(title, control) {
  control.id = `rung-${(ids += 1)}`;
  const error = make("p", { className: "error", hidden: true, id: `${control.id}-error` });
  control.setAttribute("aria-describedby", error.id);
  const label = make("label", { htmlFor: control.id, textContent: title });
  return make("div", { className: "field" }, label, control, error);
}

function tool(text, name, onclick) {
  return make("button", { type: "button", className: "icon", textContent: text, ariaLabel: name, title: name, onclick });
}

const named = (one) => (one.is_configured ? one.title : word("slot.needs_key", { provider: one.title }));

/** What there is to say of a provider, and where it is put right. */
function stateOf({ name, title, is_configured, is_healthy }, maySetKeys) {
  if (is_configured) return is_healthy ? [] : [word("slot.not_well", { provider: title })];
  const text = word("slot.no_key", { provider: title });
  if (!maySetKeys) return [text];
  const href = `/settings?part=providers#provider-${name}`;
  return [text, " ", make("a", { href, target: "_blank", textContent: word("slot.set_key") })];
}

function rungEditor(rung, { data, pick, changed, move, remove }) {
  const kept = new Map();
  const provider = make("select");
  provider.append(...data.providers.map((one) => new Option(named(one), one.name)));
  const operation = make("select");
  const note = make("p", { className: "message waiting", hidden: true });
  const place = make("div");
  const call = schemaForm(data.call, rung);
  const number = make("span", { className: "step", ariaHidden: "true" });
  const up = tool("↑", word("slot.up"), () => move(its, -1));
  const down = tool("↓", word("slot.down"), () => move(its, 1));
  const off = tool("×", word("slot.remove_rung"), () => remove(its));
  const tools = make("div", { className: "rung-tools" }, up, down, off);
  const fields = [labelled(word("slot.provider"), provider), labelled(word("slot.operation"), operation)];
  const summary = make("summary", { textContent: word("slot.how_called") });
  const more = make("details", { className: "more-of" }, summary, call.element);
  const head = make("div", { className: "rung-head" }, number, ...fields, tools);
  const element = make("li", { className: "rung" }, head, note, place, more);
  let form = null;
  let shown = "";
  let drawn = { properties: {} };
  let model;

  const theProvider = () => data.providers.find((one) => one.name === provider.value);
  const theOperation = () => theProvider()?.operations.find((one) => one.name === operation.value);

  function fillOperations(wanted) {
    const all = theProvider()?.operations ?? [];
    operation.replaceChildren(...all.map((one) => new Option(one.title, one.name)));
    if (all.some((one) => one.name === wanted)) operation.value = wanted;
    tell();
  }

  function tell() {
    const said = theProvider() ? stateOf(theProvider(), data.may_set_keys) : [];
    note.replaceChildren(make("span", {}, ...said));
    note.hidden = !said.length;
  }

  function draw(value) {
    if (form) kept.set(shown, form.read());
    const name = `${provider.value}/${operation.value}`;
    const schema = theOperation()?.schema ?? { properties: {} };
    const [before] = shown.split("/");
    const carried = Object.fromEntries(
      Object.entries(form?.read() ?? {}).filter(
        ([key, one]) =>
          key in schema.properties &&
          !["", null, drawn.properties[key]?.default].includes(one) &&
          (SHARED.has(key) || before === provider.value),
      ),
    );
    const values = value ?? kept.get(name) ?? carried;
    drawn = offered(schema, theProvider()?.models ?? {}, values);
    form = schemaForm(drawn, values, { pick, scope: operation.value });
    shown = name;
    model = form.read().model;
    place.replaceChildren(form.element);
  }

  provider.addEventListener("input", () => {
    fields.forEach((field) => mark(field));
    fillOperations(operation.value);
    draw();
  });
  operation.addEventListener("input", () => {
    mark(fields[1]);
    draw();
  });
  place.addEventListener("input", () => {
    const now = form.read();
    if (now.model === model) return;
    draw(now); // another model offers other sizes
    [...place.querySelectorAll("select")].find((one) => one.selectedOptions[0]?.text === model)?.focus();
  });
  provider.value = rung.provider;
  fillOperations(rung.operation);
  draw(rung.settings);

  function showOwn(errors, at) {
    const names = [`${at}.provider`, `${at}.operation`];
    fields.forEach((field, which) => mark(field, errors.find((one) => one.field === names[which])?.message));
    return errors.filter((one) => !names.includes(one.field));
  }

  const its = {
    element,
    up,
    down,
    first: provider,
    read: () => ({ provider: provider.value, operation: operation.value, settings: form.read(), ...call.read() }),
    /** The providers of `data` stand otherwise now. */
    providersChanged() {
      for (const option of provider.options) {
        option.text = named(data.providers.find((one) => one.name === option.value));
      }
      tell();
    },
    number(at, of) {
      number.textContent = at + 1;
      element.setAttribute("aria-label", word("slot.rung", { n: at + 1 }));
      up.disabled = at === 0;
      down.disabled = at === of - 1;
      off.disabled = of === 1;
    },
    showErrors(errors, at) {
      let left = showOwn(errors, at);
      left = form.showErrors(left, `${at}.settings`);
      const count = left.length;
      left = call.showErrors(left, at);
      if (left.length < count) more.open = true;
      return left;
    },
  };
  element.addEventListener("input", changed);
  return its;
}

/** Builds the editor: `{ element, read(), showErrors(errors) }`, as schema-form.js has them, and `providersChanged()`. */
export function routeEditor(route, { data, pick, changed }) {
  const list = make("ol", { className: "rungs" });
  const add = make("button", { type: "button", className: "button quiet", textContent: word("slot.add_rung") });
  const hedge = make("input", { type: "checkbox", id: "route-hedge", checked: route.hedge });
  const help = make("p", { className: "help", id: "route-hedge-help", textContent: word("help.hedge") });
  hedge.setAttribute("aria-describedby", help.id);
  const label = make("label", { htmlFor: hedge.id, textContent: word("field.hedge") });
  const hedged = make("div", { className: "field check" }, hedge, label, help);
  let rungs = [];

  function put() {
    list.replaceChildren(...rungs.map((one) => one.element));
    rungs.forEach((one, at) => one.number(at, rungs.length));
    add.disabled = rungs.length >= data.most_rungs;
    changed();
  }
  function move(one, step) {
    const at = rungs.indexOf(one);
    rungs.splice(at, 1);
    rungs.splice(at + step, 0, one);
    put();
    const again = step < 0 ? one.up : one.down;
    (again.disabled ? (step < 0 ? one.down : one.up) : again).focus();
  }
  function remove(one) {
    const at = rungs.indexOf(one);
    rungs = rungs.filter((other) => other !== one);
    put();
    rungs[Math.min(at, rungs.length - 1)].first.focus();
  }
  const made = (rung) => rungEditor(rung, { data, pick, changed, move, remove });
  add.onclick = () => {
    const one = made({ provider: "local", operation: "original", settings: {} });
    rungs.push(one);
    put();
    one.first.focus();
  };
  hedge.addEventListener("input", changed);
  rungs = route.rungs.map(made);
  const element = make("div", { className: "fields" }, list, make("div", { className: "actions" }, add), hedged);
  put();
  return {
    element,
    read: () => ({ rungs: rungs.map((one) => one.read()), hedge: hedge.checked }),
    providersChanged: () => rungs.forEach((one) => one.providersChanged()),
    showErrors: (errors) => rungs.reduce((left, one, at) => one.showErrors(left, `route.rungs.${at}`), errors),
  };
}
