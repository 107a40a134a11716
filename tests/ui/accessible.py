"""What every page must keep so that everybody can use it: our own small part of the WCAG 2.2 rules, as a script."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

#: WCAG 1.4.3, level AA: small text, and text of 24 px, or of 18.66 px in bold.
SMALL, LARGE = 4.5, 3.0

_SCRIPT = """
([small, large]) => {
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
      if (alpha > 0) {
        const under = at.parentElement ? behind(at.parentElement) : [255, 255, 255];
        return rgb.map((value, index) => value * alpha + under[index] * (1 - alpha));
      }
    }
    return parts(getComputedStyle(document.documentElement).backgroundColor).rgb;
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
    const by = (element.getAttribute("aria-labelledby") ?? "").split(" ").map((id) => document.getElementById(id));
    const label = by.map((one) => one?.textContent ?? "").join("") || element.getAttribute("aria-label");
    const pictures = [...element.querySelectorAll("img")].map((image) => image.alt).join("");
    return `${label || element.textContent || element.title || ""}${pictures}`.trim() !== "";
  }
  const inline = (element) => getComputedStyle(element).display === "inline"; // a link in a sentence: WCAG 2.5.8

  if (!document.documentElement.lang) found.push("html has no lang");
  if (!document.title.trim()) found.push("the page has no title");
  if (document.querySelectorAll("h1").length !== 1) found.push("there is not exactly one h1");
  if (document.querySelectorAll("main").length !== 1) found.push("there is not exactly one main");
  const heads = [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].filter(seen);
  const levels = heads.map((one) => Number(one.tagName[1]));
  heads.forEach((head, at) => {
    if (at && levels[at] > levels[at - 1] + 1) found.push(`a level of headings is left out: ${short(head)}`);
  });
  for (const nav of document.querySelectorAll("nav")) if (!nav.ariaLabel) found.push(`no name: ${short(nav)}`);
  for (const one of document.querySelectorAll("[tabindex]")) {
    if (one.tabIndex > 0) found.push(`it takes the order of tabs over: ${short(one)}`);
  }
  for (const one of document.querySelectorAll("[aria-labelledby], [aria-controls]")) {
    const named = ["aria-labelledby", "aria-controls"].map((name) => one.getAttribute(name) ?? "").join(" ");
    for (const id of named.trim().split(/ +/)) {
      if (!document.getElementById(id)) found.push(`it names #${id}, which is not there: ${short(one)}`);
    }
  }
  for (const table of document.querySelectorAll("table")) {
    if (!table.querySelector("th")) found.push(`a table without heads: ${short(table)}`);
  }
  for (const row of document.querySelectorAll("dl > :not(dt, dd, div)")) found.push(`no part of a list: ${short(row)}`);
  if (document.querySelector("meta[name=viewport][content*='user-scalable=no']")) found.push("zooming is forbidden");
  for (const image of document.querySelectorAll("img")) {
    if (!image.hasAttribute("alt")) found.push(`no alt: ${short(image)}`);
  }
  for (const drawing of document.querySelectorAll("svg")) {
    if (!drawing.querySelector("title") && drawing.ariaHidden !== "true") found.push(`no name: ${short(drawing)}`);
  }
  for (const control of document.querySelectorAll("a[href], button, summary, [role=button]")) {
    if (control.closest("[aria-hidden=true]") && control.tabIndex < 0) continue; // another leads to the same place
    if (seen(control) && !named(control)) found.push(`no name: ${short(control)}`);
    const box = control.getBoundingClientRect();
    const small = box.width < 24 || box.height < 24;
    if (seen(control) && !inline(control) && small) found.push(`too small to hit: ${short(control)}`);
  }
  for (const field of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    if (field.ariaHidden === "true") continue;
    if (!field.labels.length && !field.ariaLabel && !field.getAttribute("aria-labelledby")) {
      found.push(`no label: ${short(field)}`);
    }
    const box = (field.closest("label, .switch") ?? field).getBoundingClientRect();
    if (seen(field) && (box.width < 24 || box.height < 24)) found.push(`too small to hit: ${short(field)}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of new Set(ids.filter((one, at) => ids.indexOf(one) !== at))) found.push(`id twice: ${id}`);

  let texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const inert = element.closest("script, noscript, svg, option, .visually-hidden, :disabled, [aria-disabled=true]");
    if (inert || !walker.currentNode.data.trim() || !seen(element)) continue;
    texts += 1;
    const style = getComputedStyle(element);
    const ratio = contrast(parts(style.color).rgb, behind(element));
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 600) ? large : small;
    if (ratio < least) found.push(`contrast ${ratio.toFixed(2)}: ${short(element)}`);
  }
  if (!texts) found.push("no text was found to be measured");
  return found;
}
"""


def faults(page: Page) -> list[Any]:
    """What is wrong with the page as it is shown now, in words."""
    found: list[Any] = page.evaluate(_SCRIPT, [SMALL, LARGE])
    return found


def unseen_focus(page: Page, *, most: int = 40) -> list[str]:
    """What has the focus by the keyboard and does not show it, from the top of the page on."""
    found: list[str] = []
    page.evaluate("document.activeElement?.blur()")
    for _ in range(most):
        page.keyboard.press("Tab")
        seen = page.evaluate(_FOCUSED)
        if seen is None:
            break
        found += seen
    return found


_FOCUSED = """
() => {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  const shows = (element) => {
    const style = getComputedStyle(element);
    return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  };
  const box = at.getBoundingClientRect();
  const hidden = box.width === 0 || box.height === 0;
  const around = at.closest(".dropzone, .compare, label");
  return !hidden && (shows(at) || (around && shows(around))) ? [] : [at.outerHTML.slice(0, 90)];
}
"""
