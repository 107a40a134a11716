"""What every page must keep so that everybody can use it: our own small part of the WCAG 2.2 rules, as a script."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

#: WCAG 1.4.3, level AA, for text of any size.
MIN_CONTRAST = 4.5

_SCRIPT = """
(minContrast) => {
  const found = [];
  const seen = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const short = (element) => element.outerHTML.slice(0, 90);

  function parts(color) {
    const match = /^rgba?\\(([^)]+)\\)$/.exec(color);
    if (!match) throw new Error(`a colour this check cannot read: ${color}`);
    const [red, green, blue, alpha = 1] = match[1].split(/[\\s,/]+/).map(Number);
    return { rgb: [red, green, blue], alpha };
  }
  function behind(element) {
    for (let at = element; at; at = at.parentElement) {
      const { rgb, alpha } = parts(getComputedStyle(at).backgroundColor);
      if (alpha === 1) return rgb;
      if (alpha > 0) throw new Error(`a half transparent ground: ${short(at)}`);
    }
    return [255, 255, 255];
  }
  function luminance(rgb) {
    const [r, g, b] = rgb.map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }
  function contrast(one, other) {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  }
  function named(element) {
    const label = element.getAttribute("aria-label") || element.innerText || "";
    const pictures = [...element.querySelectorAll("img")].map((image) => image.alt).join("");
    return (label + pictures).trim() !== "";
  }

  if (!document.documentElement.lang) found.push("html has no lang");
  if (!document.title.trim()) found.push("the page has no title");
  if (document.querySelectorAll("h1").length !== 1) found.push("there is not exactly one h1");
  if (document.querySelectorAll("main").length !== 1) found.push("there is not exactly one main");
  if (document.querySelector("meta[name=viewport][content*='user-scalable=no']")) found.push("zooming is forbidden");
  for (const image of document.querySelectorAll("img")) {
    if (!image.hasAttribute("alt")) found.push(`no alt: ${short(image)}`);
  }
  for (const drawing of document.querySelectorAll("svg")) {
    if (!drawing.querySelector("title") && drawing.ariaHidden !== "true") found.push(`no name: ${short(drawing)}`);
  }
  for (const control of document.querySelectorAll("a[href], button, summary")) {
    if (!named(control)) found.push(`no name: ${short(control)}`);
    const box = control.getBoundingClientRect();
    if (seen(control) && (box.width < 24 || box.height < 24)) found.push(`too small to hit: ${short(control)}`);
  }
  for (const field of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    if (!field.labels.length && !field.ariaLabel) found.push(`no label: ${short(field)}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of new Set(ids.filter((one, at) => ids.indexOf(one) !== at))) found.push(`id twice: ${id}`);

  let texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const inert = element.closest("script, noscript, svg");
    if (inert || !walker.currentNode.data.trim() || !seen(element)) continue;
    texts += 1;
    const ratio = contrast(parts(getComputedStyle(element).color).rgb, behind(element));
    if (ratio < minContrast) found.push(`contrast ${ratio.toFixed(2)}: ${short(element)}`);
  }
  if (!texts) found.push("no text was found to be measured");
  return found;
}
"""


def faults(page: Page) -> list[Any]:
    """What is wrong with the page as it is shown now, in words."""
    found: list[Any] = page.evaluate(_SCRIPT, MIN_CONTRAST)
    return found
