// Counts down to the instant of every <time data-countdown>; at zero the page asks the server again.
const units = [["days", 86400], ["hours", 3600], ["minutes", 60], ["seconds", 1]];

function words(element, left) {
  const parts = [];
  for (const [unit, seconds] of units) {
    const count = Math.floor(left / seconds);
    left -= count * seconds;
    if (count || (unit === "seconds" && !parts.length)) parts.push(`${count} ${element.dataset[unit]}`);
  }
  return parts.slice(0, 2).join(" ");
}

for (const element of document.querySelectorAll("time[data-countdown]")) {
  const end = Date.parse(element.dateTime);
  element.title = new Date(end).toLocaleString();
  const timer = setInterval(tick, 1000);
  tick();
  function tick() {
    const left = Math.max(0, Math.round((end - Date.now()) / 1000));
    element.textContent = words(element, left);
    if (left === 0) {
      clearInterval(timer);
      setTimeout(() => location.reload(), 1500);
    }
  }
}
