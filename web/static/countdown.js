// Says until when the picture is kept, in the reader's own zone, and counts down to it by the server's clock; at zero
// the page asks the server again.
const LANGUAGE = document.documentElement.lang;
const FORMS = { en: ["one", "other"], ru: ["one", "few", "many"] }[LANGUAGE];
const plurals = new Intl.PluralRules(LANGUAGE);
const UNITS = [["days", 86400], ["hours", 3600], ["minutes", 60], ["seconds", 1]];
const until = document.getElementById("until");
const left = document.getElementById("left");
const timer = left.querySelector("[role=timer]");
const end = Date.parse(until.dateTime);
const ahead = Date.parse(left.dataset.now) - Date.now(); // a phone's clock may be wrong; its pace is not

function instant(options) {
  return new Date(end).toLocaleString(LANGUAGE, options);
}

function words(seconds) {
  const parts = [];
  for (const [unit, length] of UNITS) {
    const count = Math.floor(seconds / length);
    seconds -= count * length;
    if (count || parts.length || unit === "seconds") parts.push(`${count}\u00a0${left.dataset[unit].split("|")[FORMS.indexOf(plurals.select(count))]}`);
  }
  return parts.slice(0, 2).join(" ");
}

function tick() {
  const seconds = Math.max(0, Math.ceil((end - ahead - Date.now()) / 1000));
  timer.textContent = words(seconds);
  if (seconds) setTimeout(tick, 1000);
  else setTimeout(() => location.replace(location.href), 1000);
}

until.textContent = instant({ day: "numeric", month: "long", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
until.title = instant({ dateStyle: "full", timeStyle: "long" });
tick();
