// A slot's options as a form; the budget of a stretch of time is there when it has a name.
import { make, mark, schemaForm } from "./schema-form.js";
import { word } from "./words.js";

const two = (n) => String(n).padStart(2, "0");

/** An instant as a datetime-local field wants it, in the reader's zone. */
function local(instant) {
  if (!instant) return "";
  const at = new Date(instant);
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day}T${two(at.getHours())}:${two(at.getMinutes())}`;
}

const instant = (text) => (text ? new Date(text).toISOString() : null);

function periodForm(period) {
  const places = new Map();
  const field = (name, properties, text = null) => {
    const control = make("input", { id: `period-${name}`, ...properties });
    const error = make("p", { className: "error", hidden: true, id: `period-${name}-error` });
    const hint = text && make("p", { className: "help", id: `period-${name}-help`, textContent: text });
    control.setAttribute("aria-describedby", `${control.id}-help ${error.id}`);
    const label = make("label", { htmlFor: control.id, textContent: word(`field.${name}`) });
    const box = make("div", { className: "field" }, label, control, hint, error);
    places.set(name, { box, control });
    return box;
  };
  const fields = [
    field("name", { value: period?.name ?? "", maxLength: 60 }, word("slot.period_name")),
    field("amount", { type: "number", min: 0, step: "any", value: period?.amount ?? "" }),
    field("begins_at", { type: "datetime-local", value: local(period?.begins_at) }),
    field("ends_at", { type: "datetime-local", value: local(period?.ends_at) }),
  ];
  const legend = make("legend", { textContent: word("slot.period") });
  const help = make("p", { className: "help", textContent: word("slot.period_help") });
  const element = make("fieldset", {}, legend, help, make("div", { className: "pair" }, ...fields));
  element.addEventListener("input", (event) => mark(event.target.closest(".field")));
  const value = (name) => places.get(name).control.value.trim();
  return {
    element,
    read() {
      const isFilled = ({ control }) => control.value.trim() || control.validity.badInput;
      if (![...places.values()].some(isFilled)) return null;
      const amount = value("amount") === "" ? null : Number(value("amount"));
      const [begins_at, ends_at] = [instant(value("begins_at")), instant(value("ends_at"))];
      return { name: value("name") || null, begins_at, ends_at, amount };
    },
    showErrors(errors) {
      for (const { box } of places.values()) mark(box);
      return errors.filter((one) => {
        if (!one.field.startsWith("options.budget_period")) return true;
        mark((places.get(one.field.split(".")[2]) ?? places.get("ends_at")).box, one.message);
        return false;
      });
    },
  };
}

/** Builds the form: `{ element, read(), showErrors(errors) }`, as schema-form.js has them. */
export function optionsForm(options, { schema, changed }) {
  const form = schemaForm(schema, options);
  const period = periodForm(options.budget_period);
  const element = make("div", { className: "fields" }, form.element, period.element);
  element.addEventListener("input", changed);
  return {
    element,
    read: () => ({ ...form.read(), budget_period: period.read() }),
    showErrors: (errors) => period.showErrors(form.showErrors(errors, "options")),
  };
}
