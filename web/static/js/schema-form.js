// A form from a JSON Schema (2020-12, as Pydantic makes it), and the plain object back from it.
//
// A field's title and help are the catalogue's `field.<name>` and `help.<name>` where the page has those words, else the
// schema's own; an option's are `option.<value>`.
import { knows, number, word } from "./words.js";

const LONG = 200;
const ENDLESS = 1e9;
let ids = 0;

/** An element with its properties and children; a child that is null is left out. */
export const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((one) => one !== null));
  return element;
};
const said = (kind, name, otherwise) => (knows(`${kind}.${name}`) ? word(`${kind}.${name}`) : otherwise);

/** Marks a field (`.field` with its control and its `.error`) as wrong, in these words; without words it is right. */
export function mark(box, text = "", control = box.querySelector("input, select, textarea")) {
  const error = box.querySelector(":scope > .error");
  error.textContent = text;
  error.hidden = !text;
  box.classList.toggle("wrong", Boolean(text));
  if (text) control.setAttribute("aria-invalid", "true");
  else control.removeAttribute("aria-invalid");
}

/** A field's title: the catalogue's `field.<scope>.<name>`, else its `field.<name>`, else `otherwise`. */
export const titled = (scope, name, otherwise) => said("field", `${scope}.${name}`, said("field", name, otherwise));

/** An option as people read it. */
export const optionWord = (value) => said("option", value, String(value));

/** A schema without references and without its null: `nullable` says whether there was one. */
export function resolved(schema, root) {
  let found = schema;
  let nullable = false;
  for (;;) {
    const { $ref, anyOf, allOf, ...rest } = found;
    if ($ref) {
      found = { ...$ref.slice(2).split("/").reduce((at, part) => at[part], root), ...rest };
    } else if (allOf?.length === 1) {
      found = { ...allOf[0], ...rest };
    } else if (anyOf) {
      const some = anyOf.filter((one) => one.type !== "null");
      nullable ||= some.length < anyOf.length;
      if (some.length !== 1) return { ...rest, nullable, options: some };
      found = { ...some[0], ...rest };
    } else return { ...found, nullable };
  }
}

function kindOf(schema) {
  if (schema.enum || schema.const !== undefined) return choice;
  if (schema.format === "template") return picked;
  if (schema.type === "array") return resolvedItems(schema).format === "template" ? picked : list;
  if (schema.type === "boolean") return schema.nullable ? choice : check;
  if (schema.type === "integer" || schema.type === "number") return numeric;
  if (schema.type === "string") return text;
  if (schema.type === "object" && schema.properties) return group;
  if (schema.type === "object" && schema.additionalProperties?.$ref) return records;
  if (schema.type === "object" && ["number", "integer", "string"].includes(schema.additionalProperties?.type)) return table;
  return raw;
}

const resolvedItems = (schema) => schema.items ?? {};

// -- the kinds of fields: each gives { control, element?, read() }; read() gives undefined for "not set" --------------

function text({ schema, value, id }) {
  const long = (schema.maxLength ?? 0) > LONG;
  const control = make(long ? "textarea" : "input", { id, value: value ?? "", spellcheck: long });
  if (long) control.rows = 4;
  if (schema.maxLength) control.maxLength = schema.maxLength;
  if (typeof schema.default === "string" && schema.default) control.placeholder = schema.default;
  if (schema.format === "date-time") control.placeholder = "2026-11-25T18:00:00+03:00";
  const read = () => (control.value === "" && (schema.nullable || schema.minLength) ? null : control.value);
  return { control, extra: suggestions(schema, control), read };
}

function suggestions(schema, control) {
  if (!schema.examples?.length || control.tagName !== "INPUT") return null;
  const options = schema.examples.map((one) => make("option", { value: one }));
  const datalist = make("datalist", { id: `${control.id}-examples` }, ...options);
  control.setAttribute("list", datalist.id);
  return datalist;
}

function numeric({ schema, value, id }) {
  const control = make("input", { id, type: "number", inputMode: "decimal" });
  const least = schema.minimum ?? schema.exclusiveMinimum;
  const most = schema.maximum ?? schema.exclusiveMaximum;
  if (least !== undefined) control.min = least;
  if (most !== undefined) control.max = most;
  control.step = schema.multipleOf ?? (schema.type === "integer" ? 1 : "any");
  control.value = value ?? "";
  if (typeof schema.default === "number") control.placeholder = schema.default;
  const read = () => {
    if (control.validity.badInput) return "?"; // what is typed is no number: the server says so
    return control.value === "" ? (schema.nullable ? null : undefined) : Number(control.value);
  };
  return { control, read };
}

function check({ value, id }) {
  const control = make("input", { id, type: "checkbox", checked: Boolean(value) });
  return { control, read: () => control.checked };
}

function choice({ schema, value, id }) {
  const control = make("select", { id });
  const values = schema.enum ?? (schema.const !== undefined ? [schema.const] : [true, false]);
  if (schema.nullable) control.append(new Option(word("ui.not_set"), ""));
  values.forEach((one, at) => control.append(new Option(said("option", one, String(one)), at)));
  const at = values.indexOf(value);
  control.value = at >= 0 ? at : schema.nullable ? "" : 0;
  return { control, read: () => (control.value === "" ? null : values[Number(control.value)]) };
}

function list({ schema, value, id }) {
  const numbers = ["number", "integer"].includes(resolvedItems(schema).type);
  const control = make("textarea", { id, rows: 3, value: (value ?? []).join("\n") });
  const read = () => {
    const lines = control.value.split("\n").map((line) => line.trim()).filter(Boolean);
    return numbers ? lines.map(Number) : lines;
  };
  return { control, help: word("ui.one_a_line"), read };
}

function table({ schema, value, id }) {
  const control = make("div", { id, className: "rows", role: "group" });
  const numbers = ["number", "integer"].includes(schema.additionalProperties?.type);
  const names = schema.propertyNames?.oneOf; // the only ones there may be, and what people call them
  const rows = () => [...control.querySelectorAll(".row")].map((row) => [...row.querySelectorAll("input, select")]);
  const free = () => names?.filter((one) => !rows().some(([key]) => key.value === one.const)) ?? [];
  const offer = () => (more.hidden = Boolean(names) && !free().length);
  const keyOf = (name) => {
    if (!names) return make("input", { value: name });
    const known = names.some((one) => one.const === name);
    const options = (known ? names : [...names, { const: name, title: name }]).map((one) => new Option(one.title, one.const));
    const key = make("select", { onchange: offer }, ...options);
    key.value = name;
    return key;
  };
  const cell = (title, input) => make("label", { className: "cell" }, make("span", { textContent: title }), input);
  const add = (name = free()[0]?.const ?? "", one = "") => {
    const key = keyOf(name);
    const its = make("input", { value: one, ...(numbers ? { type: "number", step: "any", inputMode: "decimal" } : {}) });
    const gone = make("button", { type: "button", className: "icon", ariaLabel: word("ui.remove"), textContent: "×" });
    const titles = [schema.propertyNames?.title ?? word("ui.name"), schema.additionalProperties.title ?? word("ui.value")];
    const row = make("div", { className: "row" }, cell(titles[0], key), cell(titles[1], its), gone);
    gone.onclick = () => {
      row.remove();
      offer();
      control.dispatchEvent(new Event("input", { bubbles: true }));
    };
    control.insertBefore(row, more);
    offer();
    return names ? its : key;
  };
  const more = make("button", { type: "button", className: "button quiet small", textContent: word("ui.add") });
  more.onclick = () => add().focus();
  control.append(more);
  for (const [name, one] of Object.entries(value ?? {})) add(name, one);
  const valueOf = (text) => (!numbers ? text : text === "" ? null : Number(text)); // null: the server says what it needs
  const read = () =>
    Object.fromEntries(
      rows()
        .map((row) => row.map((input) => input.value.trim()))
        .filter(([name]) => name)
        .map(([name, one]) => [name, valueOf(one)]),
    );
  return { control, read };
}

function picked({ schema, value, id, name, pick }) {
  const several = schema.type === "array";
  let chosen = several ? [...(value ?? [])] : value ? [value] : [];
  const control = make("div", { id, className: "picked", role: "group" });
  const show = async () => control.replaceChildren(...(await pick.show(chosen, name, remove)), button);
  const remove = (one) => {
    chosen = chosen.filter((other) => other !== one);
    show();
    button.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const button = make("button", { type: "button", className: "button quiet small", textContent: word("ui.choose") });
  button.onclick = async () => {
    const found = await pick.choose(chosen, { name, several, most: schema.maxItems });
    if (!found) return;
    chosen = found;
    await show();
    button.dispatchEvent(new Event("input", { bubbles: true }));
  };
  if (pick) show();
  else control.append(make("code", { textContent: chosen.join(", ") || "–" }));
  return { control, read: () => (several ? chosen : (chosen[0] ?? null)) };
}

function group({ schema, value, path, context, id }) {
  const inside = fields(schema, value ?? {}, path, context);
  const control = make("fieldset", {}, ...inside.elements);
  if (!schema.nullable) return { control, read: inside.read, isGroup: true };
  const switched = make("input", { id, type: "checkbox", checked: Boolean(value) });
  const show = () => inside.elements.forEach((one) => (one.hidden = !switched.checked));
  switched.onchange = show;
  show();
  return { control, read: () => (switched.checked ? inside.read() : null), isGroup: true, switched };
}

function records({ schema, value, id, path, context }) {
  const control = make("div", { id, className: "records", role: "group" });
  const inner = resolved(schema.additionalProperties, context.root);
  let made = [];
  const add = (name = "", one = {}, open = true) => {
    const key = make("input", { value: name, spellcheck: false, id: `${id}-name-${(ids += 1)}` });
    const label = make("label", { htmlFor: key.id, textContent: word("ui.name") });
    const title = make("summary", { textContent: name || word("ui.name") });
    const gone = make("button", { type: "button", className: "button quiet small danger", textContent: word("ui.remove") });
    const inside = fields(inner, one, [...path, name], context);
    const rest = make("div", { className: "fields" }, make("div", { className: "field" }, label, key), ...inside.elements, gone);
    const record = { box: make("details", { open }, title, rest), read: () => [key.value.trim(), inside.read()] };
    key.oninput = () => (title.textContent = key.value || word("ui.name"));
    gone.onclick = () => {
      made = made.filter((other) => other !== record);
      record.box.remove();
      control.dispatchEvent(new Event("input", { bubbles: true }));
    };
    made.push(record);
    control.insertBefore(record.box, more);
    return key;
  };
  const more = make("button", { type: "button", className: "button quiet small", textContent: word("ui.add") });
  more.onclick = () => add().focus();
  control.append(more);
  for (const [name, one] of Object.entries(value ?? {})) add(name, one, false);
  return { control, read: () => Object.fromEntries(made.map((one) => one.read()).filter(([name]) => name)) };
}

function raw({ value, id }) {
  const control = make("textarea", { id, rows: 4, className: "code", value: JSON.stringify(value ?? null, null, 2) });
  const read = () => {
    try {
      return JSON.parse(control.value);
    } catch {
      return control.value; // the server says what is wrong with it
    }
  };
  return { control, read };
}

// -- the form ---------------------------------------------------------------------------------------------------------

function limits(schema) {
  const least = schema.minimum ?? schema.exclusiveMinimum;
  const greatest = schema.maximum ?? schema.exclusiveMaximum;
  const most = greatest >= ENDLESS ? undefined : greatest; // nobody gets there: not worth a word
  const digits = (value) => (Number.isInteger(value) ? 0 : 2);
  if (least !== undefined && most !== undefined) {
    return word("ui.from_to", { least: number(least, digits(least)), most: number(most, digits(most)) });
  }
  if (least !== undefined) return word("ui.at_least", { least: number(least, digits(least)) });
  if (most !== undefined) return word("ui.at_most", { most: number(most, digits(most)) });
  return schema.maxLength ? word("ui.at_most_characters", { most: number(schema.maxLength) }) : "";
}

function field(name, given, value, path, required, context) {
  const schema = resolved(given, context.root);
  const id = `field-${(ids += 1)}`;
  const initial = value === undefined ? schema.default : value;
  const its = kindOf(schema)({ schema, value: initial, id, name, path, context, pick: context.pick });
  const help = [said("help", `${context.scope}.${name}`, said("help", name, schema.description ?? "")), its.help, limits(schema)].filter(Boolean).join(" ");
  const title = titled(context.scope, name, schema.title ?? name);
  const error = make("p", { className: "error", id: `${id}-error`, hidden: true });
  const hint = help ? make("p", { className: "help", id: `${id}-help`, textContent: help }) : null;
  its.control.setAttribute("aria-describedby", `${id}-help ${id}-error`);
  if (required) its.control.setAttribute("aria-required", "true");
  const box = make("div", { className: its.control.type === "checkbox" ? "field check" : "field" });
  if (its.switched) {
    const label = make("label", { className: "switched", htmlFor: id }, its.switched, title);
    its.control.prepend(make("legend", {}, label));
  } else if (its.isGroup) its.control.prepend(make("legend", { textContent: title }));
  else if (its.control.matches("div")) {
    const label = make("span", { className: "label", id: `${id}-label`, textContent: required ? `${title} *` : title });
    its.control.setAttribute("aria-labelledby", label.id);
    box.append(label);
  } else box.append(make("label", { htmlFor: id, textContent: required ? `${title} *` : title }));
  box.append(...[its.control, its.extra ?? null, hint, error].filter(Boolean));
  context.places.set(path.join("."), { box, control: its.control });
  return { element: box, read: its.read };
}

function fields(schema, value, path, context) {
  const made = Object.entries(schema.properties ?? {}).map(([name, one]) => [
    name,
    field(name, one, value[name], [...path, name], schema.required?.includes(name), context),
  ]);
  const read = () =>
    Object.fromEntries(made.map(([name, one]) => [name, one.read()]).filter(([, one]) => one !== undefined));
  return { elements: made.map(([, one]) => one.element), read };
}

/**
 * Builds the form's fields: `{ element, read(), showErrors(errors, prefix), clearErrors() }`.
 *
 * `value`: what is set; where it is silent the schema's default stands. `pick`: how template pictures are shown and
 * chosen, `{ show(ids, name, remove) → elements, choose(ids, { name, several, most }) → ids or null }`, both may be
 * asynchronous. `scope`: words of this name go before the others, `field.<scope>.<name>`. `showErrors` takes a Problem's errors, shows those whose field begins with `prefix` (like
 * "route.rungs.0.settings") where they belong, and gives back the others.
 */
export function schemaForm(schema, value = {}, { pick = null, scope = "" } = {}) {
  const context = { root: schema, pick, scope, places: new Map() };
  const inside = fields(resolved(schema, schema), value, [], context);
  const element = make("div", { className: "fields" }, ...inside.elements);
  element.addEventListener("input", (event) => clear(event.target.closest(".field")));
  function clear(box) {
    const place = [...context.places.values()].find((one) => one.box === box);
    if (place) mark(box, "", place.control);
  }
  function clearErrors() {
    for (const { box, control } of context.places.values()) mark(box, "", control);
  }
  function placeOf(name) {
    for (let at = name; at; at = at.includes(".") ? at.slice(0, at.lastIndexOf(".")) : "") {
      if (context.places.has(at)) return context.places.get(at);
    }
    return null;
  }
  function showErrors(errors, prefix = "") {
    clearErrors();
    const left = [];
    for (const one of errors) {
      const ours = !prefix || one.field.startsWith(`${prefix}.`);
      const place = ours ? placeOf(prefix ? one.field.slice(prefix.length + 1) : one.field) : null;
      if (!place) {
        left.push(one);
        continue;
      }
      mark(place.box, one.message, place.control);
    }
    element.querySelector("[aria-invalid]")?.focus();
    return left;
  }
  return { element, read: inside.read, showErrors, clearErrors };
}
