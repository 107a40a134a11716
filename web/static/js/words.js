// The words a page's modules say: the data block its template has written, in the reader's language.
const block = document.getElementById("words");
const WORDS = block ? JSON.parse(block.textContent) : {};
export const LANGUAGE = document.documentElement.lang || "en";
const plurals = new Intl.PluralRules(LANGUAGE);
const FORMS = { en: ["one", "other"], ru: ["one", "few", "many"] };

function filled(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** The word of a key, its {names} filled in. */
export function word(key, values = {}) {
  if (!(key in WORDS)) console.error(`no word: ${key}`);
  return filled(WORDS[key] ?? key, values);
}

/** Whether the page knows the word. */
export const knows = (key) => key in WORDS;

// A word that is said where the page has it.
const known = (kind, code, otherwise) => (knows(`${kind}.${code}`) ? word(`${kind}.${code}`) : otherwise);

/** What a Problem says: in another language than the server's own, its kind first. */
export function reason(problem) {
  const kind = known("failure", problem.code, "");
  if (LANGUAGE === "en" || !kind) return problem.message;
  return problem.message === problem.title ? kind : `${kind}: ${problem.message}`;
}

/** A Problem's errors with the page's own words, `wrong.<code>`, where it has some. */
export const spoken = (errors) => errors.map((one) => ({ ...one, message: known("wrong", one.code, one.message) }));

/** A word with a form for each number: "one|many" or "один|два|пять". */
export function count(key, n, values = {}) {
  const forms = (WORDS[key] ?? key).split("|");
  const at = (FORMS[LANGUAGE] ?? FORMS.en).indexOf(plurals.select(n));
  const form = forms[at < 0 ? Math.min(1, forms.length - 1) : Math.min(at, forms.length - 1)];
  return filled(form, { n: n.toLocaleString(LANGUAGE), ...values });
}

/** An amount of the money that the settings name. */
export function money(value) {
  return `${number(value, value === 0 ? 0 : value < 1 ? 3 : 2)}\u00a0${document.documentElement.dataset.currency}`;
}

/** A number as people of this language write it. */
export function number(value, digits = 0) {
  return value.toLocaleString(LANGUAGE, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
