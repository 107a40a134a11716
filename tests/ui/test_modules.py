"""The shared modules of the pages, by themselves in a real browser: forms from schemas, what is copied and dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from photochanger.config import PROJECT
from tests.installation import Installation, until
from tests.ui.accessible import faults
from tests.ui.conftest import LAN_HOST, Guest
from tests.ui.signed_in import SCREENSHOTS, sign_in

pytestmark = pytest.mark.xdist_group("shared")
SCHEMAS = PROJECT / "spec" / "contracts" / "schemas"
SETTINGS = [*sorted(path.stem for path in SCHEMAS.glob("*_settings.json")), "options", "gemini_options"]

_BUILD = """
async ([schema, value]) => {
  const { schemaForm } = await import("/static/js/schema-form.js");
  window.form = schemaForm(schema, value);
  const heading = Object.assign(document.createElement("h1"), { textContent: "Form" });
  document.getElementById("main").replaceChildren(heading, form.element);
  return form.read();
}
"""


@pytest.fixture
def page(guest: Guest, shared: Installation) -> Page:
    opened = guest(width=360)
    sign_in(opened, shared, path="/sign-in")
    return opened


def built(page: Page, schema: dict[str, Any], value: dict[str, Any]) -> Any:
    return page.evaluate(_BUILD, [schema, value])


@pytest.mark.parametrize("name", SETTINGS)
def test_a_form_of_every_schema_gives_back_what_it_was_given(page: Page, name: str) -> None:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    given = {key: one["default"] for key, one in schema["properties"].items() if "default" in one}
    if "prompt" in schema["properties"]:
        given["prompt"] = "Make it a watercolour"
    assert {key: value for key, value in built(page, schema, given).items() if key in given} == given
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"form-{name}.png", full_page=True)
    assert faults(page) == []


def test_what_is_typed_is_read_back_in_its_type(page: Page) -> None:
    schema = json.loads((SCHEMAS / "gemini_image_edit_settings.json").read_text())
    built(page, schema, {"prompt": "A"})
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("Picture size").select_option("2K")
    page.get_by_label("Longest edge sent").fill("")
    read = page.evaluate("form.read()")
    assert (read["temperature"], read["image_size"], read["send_edge"]) == (0.5, "2K", None)


def test_an_error_stands_at_its_field_and_goes_when_it_is_mended(page: Page) -> None:
    schema = json.loads((SCHEMAS / "gemini_image_edit_settings.json").read_text())
    built(page, schema, {"prompt": "A"})
    left = page.evaluate(
        """form.showErrors([
          { field: "route.rungs.0.settings.temperature", message: "is too hot" },
          { field: "route.rungs.0.provider", message: "is unknown" },
        ], "route.rungs.0.settings")"""
    )
    assert [one["field"] for one in left] == ["route.rungs.0.provider"]
    expect(page.get_by_text("is too hot")).to_be_visible()
    expect(page.get_by_label("Temperature")).to_be_focused()
    page.get_by_label("Temperature").fill("1")
    expect(page.get_by_text("is too hot")).to_be_hidden()


def test_what_needs_a_script_is_not_clicked_before_it_is_there(guest: Guest, shared: Installation) -> None:
    page = guest()
    page.route("**/js/shell.js", lambda route: route.fulfill(content_type="text/javascript", body=""))
    sign_in(page, shared, path="/gallery")
    reached = "(button) => getComputedStyle(button).pointerEvents !== 'none'"
    assert not page.locator("[data-opens=opening]").evaluate(reached)
    assert page.locator(".gallery-filters select").evaluate(reached)
    page.unroute("**/js/shell.js")
    page.reload()
    page.locator("[data-opens=opening]").click()
    expect(page.locator("#opening")).to_be_visible()


def test_text_is_copied_without_a_secure_context(guest: Guest, shared: Installation) -> None:
    page = guest()
    sign_in(page, shared, path="/sign-in", host=LAN_HOST)
    assert page.evaluate("async () => (await import('/static/js/copy.js')).copy('IMG')") is True


def test_a_file_is_dropped_and_sent_with_its_progress(page: Page, tmp_path: Path) -> None:
    picture = tmp_path / "photo.jpg"
    picture.write_bytes((PROJECT / "ops" / "sample" / "photo.jpg").read_bytes())
    page.evaluate(
        """async () => {
          const { dropzone, upload } = await import("/static/js/dropzone.js");
          const zone = document.createElement("label");
          zone.className = "dropzone";
          zone.innerHTML = '<input type="file" aria-label="Photo"><span>Photo</span>';
          document.getElementById("main").replaceChildren(zone);
          window.progress = [];
          dropzone(zone, async ([file]) => {
            const form = new FormData();
            form.append("file", file);
            try {
              await upload("/api/nowhere", form, { onProgress: (part) => progress.push(part) });
            } catch (problem) {
              window.problem = { status: problem.status, code: problem.code };
            }
          });
        }"""
    )
    page.locator(".dropzone input").set_input_files(picture)
    problem = until(lambda: page.evaluate("window.problem"), within_s=10, what="the upload is answered")
    assert problem == {"status": 404, "code": "not_found"}
    assert page.evaluate("progress.at(-1)") is None
