// Asks whether the picture is ready, and shows it by loading the page once; asks nothing while the page is hidden.
const PAUSE_MS = 1000;
const unreachable = document.getElementById("unreachable");
let misses = 0;

// The server marks the waiting page with Retry-After; 404 and 410 are final, other refusals pass.
async function ready() {
  const answer = await fetch(location.href, { method: "HEAD", headers: { Accept: "text/html" }, cache: "no-store" });
  if (answer.status === 404 || answer.status === 410) return true;
  if (!answer.ok) throw new Error(answer.statusText);
  return !answer.headers.has("Retry-After");
}

async function look() {
  if (!document.hidden) {
    try {
      if (await ready()) return location.replace(location.href);
      misses = 0;
    } catch {
      misses += 1;
    }
    const words = misses > 2 ? unreachable.dataset.words : "";
    if (unreachable.textContent !== words) unreachable.textContent = words;
  }
  setTimeout(look, PAUSE_MS);
}

setTimeout(look, PAUSE_MS);
