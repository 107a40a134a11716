"""The settings in a real browser: saved, refused at their field, keys tried, the cameras' password changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Dialog, Locator, Page, expect

from ops.simulators import KEY, serving
from ops.simulators.openai import OpenAI
from tests.installation import Installation, until
from tests.integration.calls import options
from tests.photos import photo
from tests.ui.conftest import LAN_HOST, Guest
from tests.ui.signed_in import FLOWS, LOOKS, check_focus, look, sign_in
from web.pages import say_count, words
from web.pages.settings import PARTS

pytestmark = pytest.mark.xdist_group("studio")
EN = words("en")


@pytest.fixture(scope="module")
def vendor(studio: Installation) -> Iterator[OpenAI]:
    """OpenAI's simulator, which the studio's openai leads to."""
    with serving(OpenAI()) as simulator:
        studio.sql(
            "INSERT INTO app_settings (key, value) VALUES ('providers', jsonb_build_object('openai', %s::jsonb)) "
            "ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value",
            json.dumps(options("openai", simulator.url)),
        )
        yield simulator


def opened(page: Page, studio: Installation, part: str, **how: Any) -> None:
    sign_in(page, studio, path=f"/settings%3Fpart%3D{part}", **how)


def card_of(page: Page, studio: Installation, provider: str) -> Locator:
    """The provider's card, of the settings that are opened for it."""
    opened(page, studio, "providers")
    return page.locator(f"[data-provider={provider}]")


def begins(word: str) -> str:
    """A word up to what is filled in."""
    return word.partition("{")[0].strip()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_the_settings_are_whole(
    guest: Guest, studio: Installation, language: str, width: int, scheme: str, part: str
) -> None:
    studio.sql(
        "INSERT INTO breaker (provider, failures, cause, detail, failed_at, open_until) "
        "VALUES ('gemini', 5, 'provider_error', 'Gemini answered 503: overloaded', clock_timestamp(), "
        "clock_timestamp() + interval '1 h') "
        "ON CONFLICT (provider) DO NOTHING"
    )
    page = guest(language=language, width=width, scheme=scheme)
    opened(page, studio, part)
    expect(page.locator("h1")).to_have_text(words(language)["settings.title"])
    look(page, f"settings-{part}-{language}-{width}-{scheme}", width=width)
    check_focus(page)


def test_the_options_of_a_provider_open_into_a_form(guest: Guest, studio: Installation) -> None:
    for language, width in (("en", 1440), ("ru", 360)):
        page = guest(language=language, width=width)
        opened(page, studio, "providers")
        card = page.locator("[data-provider=gemini]")
        columns = "[...document.querySelectorAll('.provider')].map((card) => card.getBoundingClientRect().x)"
        before = page.evaluate(columns)
        card.locator("details.options > summary").click()
        card.locator(".records summary").first.click()
        assert page.evaluate(columns) == before  # no card jumps from under the pointer
        look(page, f"settings-options-{language}-{width}-light", width=width)


def test_what_was_changed_is_saved_and_nothing_else(guest: Guest, studio: Installation) -> None:
    page = guest()
    opened(page, studio, "limits")
    expect(page.locator("#save")).to_be_hidden()
    page.locator("#setting-max_upload_bytes").fill("40")
    page.locator("#setting-ingest_per_minute").fill("300")
    with page.expect_request("**/api/settings") as sent:
        page.locator("#save").click()
    assert sent.value.post_data_json == {"max_upload_bytes": 40 * 1024**2, "ingest_per_minute": 300}
    expect(page.locator(".toast").last).to_contain_text("Saved")
    page.reload()
    expect(page.locator("#setting-max_upload_bytes")).to_have_value("40")
    expect(page.locator("#save")).to_be_hidden()
    page.locator("#setting-ingest_per_minute").fill("")
    page.locator("#save").click()
    expect(page.locator(".toast").last).to_contain_text("Saved")


@pytest.mark.parametrize(("language", "width"), FLOWS)
def test_what_was_changed_is_given_up_when_one_says_so(
    guest: Guest, studio: Installation, language: str, width: int
) -> None:
    said = words(language)
    page = guest(language=language, width=width)
    opened(page, studio, "limits")
    field, zone = page.locator("#setting-max_upload_bytes"), page.locator("#setting-time_zone")
    before = (field.input_value(), zone.input_value())
    field.fill("31")
    zone.fill("Asia/Tokyo")
    page.locator("#discard").click()
    look(page, f"settings-discard-{language}-{width}-light", width=width, full=False)
    page.get_by_role("button", name=said["ui.discard_not"]).click()
    expect(field).to_have_value("31")
    look(page, f"settings-changed-{language}-{width}-light", width=width, full=False)
    page.locator("#discard").click()
    page.get_by_role("dialog").get_by_role("button", name=said["ui.discard"]).click()
    expect(page.locator("#save")).to_be_hidden()
    assert (field.input_value(), zone.input_value()) == before
    assert page.evaluate("document.activeElement !== document.body")


def test_costs_are_told_in_the_currency_that_is_set(guest: Guest, studio: Installation) -> None:
    page = guest()
    opened(page, studio, "limits")
    page.locator("#setting-currency").fill("EUR")
    page.locator("#setting-usd_rate").fill("0.86")
    with page.expect_request("**/api/settings") as sent:
        page.locator("#save").click()
    assert sent.value.post_data_json == {"currency": "EUR", "usd_rate": 0.86}
    expect(page.locator(".toast").last).to_contain_text("Saved")
    try:
        cost = page.locator(".figure", has=page.get_by_text("Cost", exact=True)).locator("dd")

        def in_euros() -> bool:  # every page knows within two seconds
            page.goto(f"{studio.url}/")
            return cost.inner_text().endswith("\N{NO-BREAK SPACE}EUR")

        until(in_euros, within_s=3, what="costs in euros")
        opened(page, studio, "limits")
        page.locator("#setting-currency").fill("euro")
        page.locator("#save").click()
        expect(page.locator("#setting-currency-error")).to_be_visible()
    finally:
        studio.cli("settings", 'currency="USD"', "usd_rate=1")


def test_a_value_out_of_bounds_is_told_at_its_field(guest: Guest, studio: Installation) -> None:
    page = guest(language="ru", width=360)
    opened(page, studio, "limits")
    for row in (".tabs", ".side"):  # what is wider than a phone shows where one is
        expect(page.locator(f"{row} [aria-current]")).to_be_in_viewport(ratio=0.9)
    assert page.evaluate("scrollY") == 0
    page.route("**/api/settings", lambda route: route.continue_())
    page.locator("#setting-t_sync_response_s").fill("5")
    with page.expect_response("**/api/settings") as answered:
        page.locator("#save").click()
    assert answered.value.status == 422
    error = page.locator("#setting-t_sync_response_s-error")
    expect(error).to_have_text(words("ru")["settings.js.out_of_bounds"])
    expect(page.locator("#setting-t_sync_response_s")).to_be_focused()
    look(page, "settings-refused-ru-360-light", width=360, full=False)
    page.locator("#setting-t_sync_response_s").fill("48")


def test_who_may_only_look_changes_nothing(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, name="looker", permissions=("settings:read",))
    for part in PARTS:
        page.goto(f"{studio.url}/settings?part={part}")
        expect(page.locator("main")).to_contain_text(EN["settings.read_only"])
        assert page.locator("main button").count() == 0


@pytest.mark.parametrize(("language", "width"), FLOWS)
def test_the_ingest_password_is_changed_with_a_grace(
    guest: Guest, studio: Installation, language: str, width: int
) -> None:
    old = studio.done("ingest-password").split()[-1]
    said = words(language)
    page = guest(language=language, width=width)
    opened(page, studio, "cameras")
    page.locator("#grace-h").select_option("1")
    page.get_by_role("button", name=said["settings.rotate"]).click()
    page.get_by_role("dialog").get_by_role("button", name=said["settings.js.make"]).click()
    made = page.locator("#made-password")
    expect(made).not_to_be_empty()
    new = made.inner_text()
    valid = studio.sql("SELECT jsonb_array_length(value) AS n FROM app_settings WHERE key = 'ingest_passwords'")[0]["n"]
    expect(page.locator("#valid-now")).to_have_text(say_count(language, "settings.valid", valid))
    look(page, f"settings-rotated-{language}-{width}-light", width=width, full=False)
    until(lambda: studio.post(photo(), password=new).status_code == 200, within_s=10, what="the new one is valid")
    assert studio.post(photo(), password=old).status_code == 200
    page.get_by_role("link", name=said["settings.noted"]).click()
    expect(page.locator("#grace")).to_contain_text(begins(said["settings.grace_runs"]))
    assert new not in page.content()
    page.locator("#end-grace").click()
    page.get_by_role("dialog").get_by_role("button", name=said["settings.js.end"], exact=True).click()
    expect(page.locator("#grace")).to_have_count(0)
    until(lambda: studio.post(photo(), password=old).status_code == 401, within_s=10, what="the old has ended")
    assert studio.post(photo(), password=new).status_code == 200


def test_a_made_password_is_copied_over_plain_http(guest: Guest, studio: Installation) -> None:
    page = guest()
    opened(page, studio, "cameras", host=LAN_HOST)
    assert page.evaluate("window.isSecureContext") is False
    page.get_by_role("button", name=EN["settings.rotate"]).click()
    page.get_by_role("dialog").get_by_role("button", name=EN["settings.js.make"]).click()
    expect(page.locator("#made")).to_be_visible()
    page.locator("#made [data-copy]").click()
    expect(page.locator(".toast")).to_contain_text("Copied")


@pytest.mark.parametrize(("language", "width"), FLOWS)
def test_a_key_is_tried_stored_and_deleted(
    guest: Guest, studio: Installation, vendor: OpenAI, language: str, width: int
) -> None:
    said = words(language)
    page = guest(language=language, width=width)
    card = card_of(page, studio, "openai")
    field, outcome = card.locator("#key-openai"), card.locator(".outcome")
    other = page.locator("[data-provider=gemini]")
    other.locator("#key-gemini").fill("typed meanwhile")
    other.locator("details.options > summary").click()
    toast = page.locator(".toast").last
    field.fill("sk-wrong-0123456789")
    card.get_by_role("button", name=said["settings.key_test"]).click()
    expect(outcome).to_contain_text(said["failure.provider_auth"])
    look(page, f"settings-key-wrong-{language}-{width}-light", width=width)
    field.fill(KEY)
    card.get_by_role("button", name=said["settings.key_test"]).click()
    expect(outcome).to_contain_text(begins(said["settings.js.accepted"]))
    card.get_by_role("button", name=said["settings.key_save"]).click()
    expect(card.locator(".key-state")).to_contain_text(begins(said["settings.key_stored"]))
    expect(field).to_have_value("")
    expect(toast).to_contain_text(said["settings.js.key_saved"].partition("}")[2])
    expect(card.get_by_role("button", name=said["settings.key_save"])).to_be_focused()
    look(page, f"settings-key-saved-{language}-{width}-light", width=width)
    assert KEY not in page.content()
    card.get_by_role("button", name=said["settings.key_test"]).click()
    expect(outcome).to_contain_text(begins(said["settings.js.accepted"]))
    card.get_by_role("button", name=said["settings.key_delete"]).click()
    page.get_by_role("dialog").get_by_role("button", name=said["settings.js.delete"], exact=True).click()
    expect(card.locator(".key-state")).to_contain_text(said["settings.key_none"])
    expect(toast).to_contain_text(said["settings.js.key_deleted"].partition("}")[2])
    expect(card.get_by_role("button", name=said["settings.key_test"])).to_be_focused()
    expect(other.locator("#key-gemini")).to_have_value("typed meanwhile")
    expect(other.locator("details.options")).to_have_attribute("open", "")


def test_testing_no_key_says_where_one_is_typed(guest: Guest, studio: Installation) -> None:
    page = guest(language="ru", width=360)
    card = card_of(page, studio, "gemini")
    card.get_by_role("button", name=words("ru")["settings.key_test"]).click()
    expect(card.locator(".outcome")).to_contain_text(words("ru")["settings.js.no_key"])
    expect(card.locator("#key-gemini")).to_be_focused()


@pytest.mark.parametrize(("language", "width"), FLOWS)
def test_prices_are_those_of_the_operations_by_their_titles(
    guest: Guest, studio: Installation, vendor: OpenAI, language: str, width: int
) -> None:
    said = words(language)
    page = guest(language=language, width=width)
    card = card_of(page, studio, "openai")
    card.locator("details.options > summary").click()
    prices = card.get_by_role("group", name=said["provider_option.prices"])
    prices.get_by_role("button", name=said["ui.add"]).click()
    expect(prices.get_by_label(said["price.operation"])).to_have_value("image_edit")
    card.locator(".options-form").get_by_role("button", name=said["settings.save"]).click()
    expect(prices.locator("xpath=..").locator(".error")).to_have_text(said["settings.js.no_number"])
    prices.get_by_label(said["price.amount"].format(currency="USD")).fill("0.04")
    look(page, f"settings-prices-{language}-{width}-light", width=width)
    card.locator(".options-form").get_by_role("button", name=said["settings.save"]).click()
    expect(page.locator(".toast").last).to_contain_text(said["settings.js.saved"])
    held = studio.sql("SELECT value -> 'openai' -> 'prices' AS prices FROM app_settings WHERE key = 'providers'")
    assert held[0]["prices"] == {"image_edit": 0.04}
    prices.get_by_role("button", name=said["ui.remove"]).click()
    card.locator(".options-form").get_by_role("button", name=said["settings.save"]).click()
    until(
        lambda: (
            "prices"
            not in (studio.sql("SELECT value -> 'openai' AS its FROM app_settings WHERE key = 'providers'")[0]["its"])
        ),
        within_s=5,
        what="no price is kept",
    )


def test_what_is_wrong_with_a_field_is_said_in_the_readers_language(guest: Guest, studio: Installation) -> None:
    said = words("ru")
    page = guest(language="ru", width=360)
    opened(page, studio, "limits")
    page.locator("#setting-time_zone").fill("Москва")
    page.locator("#setting-currency").fill("рубль")
    page.locator("#save").click()
    expect(page.locator("#setting-time_zone-error")).to_have_text(said["said.field_zone"])
    expect(page.locator("#setting-currency-error")).to_have_text(said["wrong.string_pattern_mismatch"])
    page.locator("#setting-time_zone").fill("UTC")
    page.locator("#setting-currency").fill("USD")


def test_a_breaker_that_is_due_is_tried_with_the_next_photo(guest: Guest, studio: Installation) -> None:
    studio.sql(
        "INSERT INTO breaker (provider, failures, cause, detail, failed_at, open_until) VALUES ('turbotext', 5, "
        "'provider_error', 'Turbotext failed: x', clock_timestamp(), clock_timestamp() - interval '1 s')"
        "ON CONFLICT (provider) DO UPDATE SET open_until = EXCLUDED.open_until"
    )
    page = guest()
    opened(page, studio, "providers")
    expect(page.locator("[data-provider=turbotext] .breaker")).to_contain_text(EN["settings.again_next"])
    studio.sql("DELETE FROM breaker WHERE provider = 'turbotext'")


def test_a_breaker_is_closed_by_asking_again(guest: Guest, studio: Installation) -> None:
    studio.sql(
        "INSERT INTO breaker (provider, failures, cause, detail, failed_at, open_until) "
        "VALUES ('turbotext', 1, 'provider_auth', "
        "'Turbotext does not know the key', clock_timestamp(), clock_timestamp() + interval '1 h') "
        "ON CONFLICT (provider) DO NOTHING"
    )
    page = guest()
    card = card_of(page, studio, "turbotext")
    expect(card.locator(".breaker")).to_contain_text(EN["failure.provider_auth"])
    card.get_by_role("button", name=EN["settings.ask_again"]).click()
    expect(card.locator(".breaker")).to_have_count(0)
    expect(card.locator("#key-turbotext")).to_be_focused()
    assert studio.sql("SELECT FROM breaker WHERE provider = 'turbotext'") == []


def test_only_options_that_differ_from_the_usual_are_stored(guest: Guest, studio: Installation, vendor: OpenAI) -> None:
    page = guest()
    card = card_of(page, studio, "turbotext")
    card.locator("details.options > summary").click()
    card.get_by_label(EN["provider_option.calls_per_minute"]).fill("30")
    card.locator(".options-form").get_by_role("button", name=EN["settings.save"]).click()
    expect(page.locator(".toast").last).to_contain_text("Saved")
    page.get_by_role("link", name=EN["settings.limits"]).click()  # nothing is asked, as nothing would be lost
    expect(page.locator("#setting-max_upload_bytes")).to_be_visible()
    page.go_back()
    card.locator("details.options > summary").click()
    held = studio.sql("SELECT value -> 'turbotext' AS given FROM app_settings WHERE key = 'providers'")
    assert held[0]["given"] == {"calls_per_minute": 30}
    with page.expect_response("**/api/providers/turbotext") as answered:
        card.get_by_label(EN["provider_option.calls_per_minute"]).fill("0")
        card.locator(".options-form").get_by_role("button", name=EN["settings.save"]).click()
    assert answered.value.status == 422
    expect(card.locator(".error:visible")).to_have_text(EN["settings.js.out_of_bounds"])


def test_options_that_are_not_saved_are_not_left_without_a_question(guest: Guest, studio: Installation) -> None:
    page = guest()
    card = card_of(page, studio, "turbotext")
    card.locator("details.options > summary").click()
    calls = card.get_by_label(EN["provider_option.calls_per_minute"])
    calls.fill("17")
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.once("dialog", stay)
    page.get_by_role("link", name=EN["settings.limits"]).click()
    expect(calls).to_have_value("17")
    assert asked == ["beforeunload"]
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("link", name=EN["settings.limits"]).click()
    expect(page.locator("#setting-max_upload_bytes")).to_be_visible()


def test_the_public_address_is_tested_from_here(guest: Guest, studio: Installation) -> None:
    page = guest()
    opened(page, studio, "address")
    page.locator("#setting-public_base_url").fill(studio.url)
    page.locator("#check-address").click()
    expect(page.locator("#checked")).to_contain_text("does not lead here yet")
    expect(page.locator("#checked li")).not_to_have_count(0)
    look(page, "settings-checked-en-1440-light", width=1440)
    page.once("dialog", lambda dialog: dialog.accept())
    page.reload()
    expect(page.locator("#setting-public_base_url")).to_have_value("")  # what is only tried is not lived with
    page.locator("#check-address").click()
    expect(page.locator("#checked")).to_have_text(EN["settings.js.no_address"])
    page.locator("#setting-public_base_url").fill("not an address")
    page.locator("#check-address").click()
    expect(page.locator("#setting-public_base_url-error")).to_contain_text("must be like https://")
    expect(page.locator("#setting-public_base_url")).to_be_focused()
    page.locator("#save").click()
    expect(page.locator("#setting-public_base_url-error")).to_contain_text("It must be like https://")
    page.locator("#setting-public_base_url").fill("")
    expect(page.locator("#save")).to_be_hidden()
