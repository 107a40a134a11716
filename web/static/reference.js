// Filters the reference by words: what does not have them all, wherever in its text, is hidden from contents and page.
const field = document.getElementById("search");
const found = document.getElementById("found");
const entries = [...document.querySelectorAll("article[id]")].map((article) => ({
  article,
  line: document.querySelector(`nav a[href="#${article.id}"]`).parentElement,
  text: `${article.id} ${article.textContent}`.toLowerCase(),
}));
const about = document.querySelector(".text header > div");
const groups = [...document.querySelectorAll("nav section, .tag")];

function filter() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const { article, line, text } of entries) {
    const fits = words.every((word) => text.includes(word));
    article.hidden = line.hidden = !fits;
    if (fits) shown += 1;
  }
  about.hidden = words.length > 0; // what was found comes first
  for (const group of groups) group.hidden = !group.querySelector("li:not([hidden]) a, article:not([hidden])");
  found.textContent = !words.length ? "" : shown ? `${found.dataset.words}: ${shown}` : found.dataset.none;
}

function clear() {
  field.value = "";
  filter();
}

field.addEventListener("input", filter);
field.addEventListener("keydown", (event) => {
  if (event.key === "Escape") clear();
});
field.form.addEventListener("submit", (event) => {
  event.preventDefault();
  document.querySelector("nav li:not([hidden]) a")?.click();
});
// A link to what the filter hides shows everything again first.
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (link && document.getElementById(link.hash.slice(1))?.closest("[hidden]")) clear();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target === field) return;
  event.preventDefault();
  field.focus();
});
filter(); // the browser may have kept the field's words
