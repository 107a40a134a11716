// Shows every <time data-time> in the reader's zone and language: "12 s ago", a clock, a day, what is left until then or
// counts down to it, or the seconds since; the exact instant on hover. A `date` is one day, whatever the zone. The server's clock counts: a laptop's may be wrong.
import { LANGUAGE } from "./words.js";

const told = Date.parse(document.documentElement.dataset.now ?? "");
const ahead = Number.isNaN(told) ? 0 : told - Date.now(); // wrong by the time the page took to come
const relative = new Intl.RelativeTimeFormat(LANGUAGE, { numeric: "always", style: "short" });
const STEPS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const WEEK_S = 7 * 86400;

const clock = (at, seconds) =>
  at.toLocaleTimeString(LANGUAGE, { hour: "2-digit", minute: "2-digit", second: seconds, hourCycle: "h23" });
const day = (at) => at.toLocaleDateString(LANGUAGE, { day: "numeric", month: "short" });

const two = (n) => String(n).padStart(2, "0");

function countdown(at) {
  const seconds = Math.max(0, Math.ceil((at - serverNow()) / 1000));
  const minutes = `${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
  return seconds < 3600 ? minutes : `${Math.floor(seconds / 3600)}:${minutes}`;
}

/** The server's now, in milliseconds. */
export const serverNow = () => Date.now() + ahead;

function ago(at) {
  const seconds = Math.round((at - serverNow()) / 1000);
  if (Math.abs(seconds) > WEEK_S) return `${day(at)} ${clock(at)}`;
  const [unit, length] = STEPS.find(([, length]) => Math.abs(seconds) >= length) ?? STEPS.at(-1);
  return relative.format(Math.trunc(seconds / length) || -0, unit);
}

const MODES = {
  ago,
  left: ago,
  countdown,
  elapsed: (at, { unit }) => unit.replace("{n}", Math.max(0, Math.round((serverNow() - at) / 1000)).toLocaleString(LANGUAGE)),
  minute: (at) => clock(at),
  date: (at) => at.toLocaleDateString(LANGUAGE, { weekday: "long", day: "numeric", month: "long", timeZone: "UTC" }),
  clock: (at) => clock(at, "2-digit"),
  day: (at) => (at.toDateString() === new Date().toDateString() ? clock(at) : `${day(at)} ${clock(at)}`),
};

/** Shows the times in `root` as they are now. */
export function show(root = document) {
  for (const time of root.querySelectorAll("time[data-time]")) {
    const at = new Date(time.dateTime);
    if (time.dataset.server === undefined) {
      time.dataset.server = time.textContent;
      if (time.dataset.time !== "date") time.title = at.toLocaleString(LANGUAGE, { dateStyle: "full", timeStyle: "long" });
    }
    const text = (MODES[time.dataset.time] ?? ago)(at, time.dataset);
    if (time.textContent !== text) time.textContent = text;
  }
}

show();
setInterval(() => document.hidden || show(), 1000);
document.addEventListener("visibilitychange", () => document.hidden || show());
