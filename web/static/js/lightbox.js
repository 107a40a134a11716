// Shows the pictures of a [data-lightbox] one at a time, over the page: its links <a href="picture" data-caption>,
// gone through by arrow keys, buttons or a swipe. A link with data-page gets one to "more about it", with data-download
// one to the file, with data-link a button that copies it, with data-qr one that shows its code. shell.js opens it.
// While it is open it has a place of its own in the browser's history: a phone's "back" closes it and stays on the page.
import { word } from "./words.js";

const SWIPE_PX = 50;
let dialog = null;
let links = [];
let at = 0;

function build() {
  dialog = document.createElement("dialog");
  dialog.className = "lightbox";
  dialog.ariaLabel = word("ui.picture");
  dialog.innerHTML =
    '<img class="shown" alt=""><figure class="code" hidden></figure>' +
    '<div class="bar"><span class="caption"></span><a class="button quiet download" download></a>' +
    '<button type="button" class="button quiet copy"></button>' +
    '<button type="button" class="button quiet scan" aria-pressed="false"></button><a class="button quiet more"></a>' +
    '<button type="button" class="icon before">‹</button><button type="button" class="icon after">›</button>' +
    '<button type="button" class="icon close">×</button></div>';
  dialog.querySelector(".before").ariaLabel = word("ui.previous");
  dialog.querySelector(".after").ariaLabel = word("ui.next");
  dialog.querySelector(".close").ariaLabel = word("ui.close");
  dialog.querySelector(".more").textContent = word("ui.details");
  dialog.querySelector(".download").textContent = word("ui.download");
  dialog.querySelector(".copy").textContent = word("ui.copy_link");
  dialog.querySelector(".scan").textContent = word("ui.qr");
  dialog.querySelector(".scan").onclick = () => code(dialog.querySelector(".code").hidden);
  dialog.querySelector(".before").onclick = () => go(-1);
  dialog.querySelector(".after").onclick = () => go(1);
  dialog.querySelector(".close").onclick = () => dialog.close();
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") go(-1);
    if (event.key === "ArrowRight") go(1);
  });
  dialog.addEventListener("close", () => {
    // A list that was read anew meanwhile has another element of the same picture.
    const own = links[at]?.closest("[id]");
    const there = links[at]?.isConnected ? links[at] : document.getElementById(own?.id ?? "")?.querySelector("a[href]");
    (there ?? document.getElementById("main"))?.focus();
    if (history.state?.lightbox) history.back();
  });
  dialog.querySelector(".more").onclick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    location.replace(event.currentTarget.href); // in the lightbox's place: back from there leads to the page
  };
  for (const name of ["popstate", "pageshow"]) addEventListener(name, () => history.state?.lightbox || dialog.close());
  addEventListener("pagehide", () => (history.scrollRestoration = "auto"));
  let began = null;
  dialog.addEventListener("pointerdown", (event) => (began = event.clientX));
  dialog.addEventListener("pointerup", (event) => {
    const moved = began === null ? 0 : event.clientX - began;
    began = null;
    if (Math.abs(moved) > SWIPE_PX) go(moved < 0 ? 1 : -1);
  });
  document.body.append(dialog);
}

function code(wanted) {
  const figure = dialog.querySelector(".code");
  figure.hidden = !wanted || !links[at].dataset.qr;
  const drawing = Object.assign(document.createElement("img"), { src: links[at].dataset.qr ?? "", alt: word("ui.qr") });
  figure.replaceChildren(...(figure.hidden ? [] : [drawing]));
  dialog.querySelector(".scan").ariaPressed = String(!figure.hidden);
}

function offer(link) {
  const { page, download, link: address, qr } = link.dataset;
  for (const [name, given] of Object.entries({ more: page, download, copy: address, scan: qr })) {
    dialog.querySelector(`.${name}`).hidden = !given;
  }
  if (page) dialog.querySelector(".more").href = page;
  if (download) dialog.querySelector(".download").href = download;
  if (address) dialog.querySelector(".copy").dataset.copy = address;
}

function go(step) {
  at = (at + step + links.length) % links.length;
  const link = links[at];
  const image = dialog.querySelector(".shown");
  image.src = link.href;
  image.alt = link.querySelector("img")?.alt || word("ui.picture");
  dialog.querySelector(".caption").textContent = link.dataset.caption ?? "";
  offer(link);
  code(!dialog.querySelector(".code").hidden);
  for (const one of [".before", ".after"]) dialog.querySelector(one).hidden = links.length < 2;
}

/** Shows the picture of a link, and those beside it. */
export function open(link) {
  links = [...link.closest("[data-lightbox]").querySelectorAll("a[href][data-caption]")];
  at = links.indexOf(link);
  if (!dialog) build();
  go(0);
  history.scrollRestoration = "manual"; // one comes back to the picture that was seen last
  if (!history.state?.lightbox) history.pushState({ lightbox: true }, "");
  dialog.showModal();
}
