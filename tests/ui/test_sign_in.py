"""Signing in and out in a real browser: the first time, with a wrong password, too often, on the studio's network."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.api import PASSWORD
from tests.installation import Installation
from tests.ui.conftest import LAN_HOST, Guest
from tests.ui.signed_in import LOOKS, account, check_focus, end_sessions, look, sign_in
from web.pages import words

pytestmark = pytest.mark.xdist_group("shared")
NEW = "another long password"


def fill(page: Page, **fields: str) -> None:
    for name, value in fields.items():
        page.locator(f"#{name}").fill(value)
    page.locator("form button.wide").click()


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_the_sign_in_page_is_whole(guest: Guest, shared: Installation, language: str, width: int, scheme: str) -> None:
    page = guest(language=language, width=width, scheme=scheme)
    assert page.request.head(f"{shared.url}/sign-in").status == 200
    page.goto(f"{shared.url}/jobs?status=failed")
    assert page.url.endswith("/sign-in?next=/jobs%3Fstatus%3Dfailed")
    expect(page.locator("h1")).to_have_text(words(language)["sign_in.title"])
    look(page, f"sign-in-{language}-{width}-{scheme}", width=width)
    check_focus(page)


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_at_the_first_sign_in_a_password_must_be_chosen(
    guest: Guest, shared: Installation, language: str, width: int, scheme: str
) -> None:
    page = guest(language=language, width=width, scheme=scheme)
    name = f"new-{language}-{width}"
    account(shared, name, must_change=True)
    page.goto(f"{shared.url}/sign-in")
    fill(page, name=name, password=PASSWORD)
    expect(page.locator("h1")).to_have_text(words(language)["password.title"])
    look(page, f"password-{language}-{width}-{scheme}", width=width)
    page.goto(f"{shared.url}/jobs")
    expect(page).to_have_url(f"{shared.url}/password")
    fill(page, old=PASSWORD, new=NEW, again="not the same one")
    expect(page.get_by_role("alert")).to_have_text(words(language)["password.differ"])
    expect(page.locator("#again")).to_be_focused()
    expect(page.locator("#old")).to_have_value(PASSWORD)  # nothing has to be typed a second time
    look(page, f"password-differ-{language}-{width}-{scheme}", width=width)
    fill(page, old="wrong", new=NEW, again=NEW)
    expect(page.get_by_role("alert")).to_have_text(words(language)["password.old_wrong"])
    fill(page, old=PASSWORD, new=NEW, again=NEW)
    expect(page.locator("nav")).to_be_visible()
    page.goto(f"{shared.url}/jobs")
    expect(page).to_have_url(f"{shared.url}/jobs")


def test_without_javascript_too_the_field_says_that_the_passwords_differ(guest: Guest, shared: Installation) -> None:
    account(shared, "unscripted", must_change=True)
    page = guest(javascript=False)
    page.goto(f"{shared.url}/sign-in")
    fill(page, name="unscripted", password=PASSWORD)
    fill(page, old=PASSWORD, new=NEW, again="not the same one")
    expect(page.locator(".field.wrong .error")).to_have_text(words("en")["password.differ"])


def test_a_wrong_password_is_told_and_the_name_kept(guest: Guest, shared: Installation) -> None:
    account(shared, "forgetful")
    page = guest()
    page.goto(f"{shared.url}/sign-in")
    fill(page, name="forgetful", password="wrong")
    expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    expect(page.locator("#name")).to_have_value("forgetful")
    expect(page.locator("#password")).to_be_focused()


def test_too_many_wrong_passwords_say_how_long_to_wait(guest: Guest, shared: Installation) -> None:
    account(shared, "guessed")
    page = guest()
    page.goto(f"{shared.url}/sign-in")
    for _ in range(6):
        fill(page, name="guessed", password="wrong")
    expect(page.get_by_role("alert")).to_have_text(re.compile(r"Try again in \d+ minutes\."))


def test_one_comes_back_to_the_page_that_was_asked_for(guest: Guest, shared: Installation) -> None:
    page = guest()
    sign_in(page, shared, path="/jobs")
    expect(page).to_have_url(f"{shared.url}/jobs")


def test_one_is_never_sent_to_another_server(guest: Guest, shared: Installation) -> None:
    page = guest()
    account(shared, "lured")
    page.goto(f"{shared.url}/sign-in?next=//evil.example/")
    fill(page, name="lured", password=PASSWORD)
    expect(page).to_have_url(f"{shared.url}/")


def test_signing_out_ends_the_session(guest: Guest, shared: Installation) -> None:
    page = guest()
    sign_in(page, shared)
    page.locator(".account summary").click()
    page.get_by_role("button", name="Sign out", exact=True).click()
    expect(page.locator("h1")).to_have_text("Sign in")
    page.goto(f"{shared.url}/jobs")
    expect(page.locator("h1")).to_have_text("Sign in")


def test_signing_out_everywhere_ends_the_other_browser_s_session_too(guest: Guest, shared: Installation) -> None:
    here, there = guest(), guest(width=360)
    sign_in(here, shared, name="twice")
    sign_in(there, shared, name="twice")
    here.locator(".account summary").click()
    here.get_by_role("button", name="Sign out everywhere").click()
    expect(here.locator("h1")).to_have_text("Sign in")
    there.goto(f"{shared.url}/jobs")
    expect(there.locator("h1")).to_have_text("Sign in")


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_whose_session_has_ended_is_told_so_and_comes_back(
    guest: Guest, shared: Installation, language: str, width: int, scheme: str
) -> None:
    said, name = words(language), f"thrown-out-{language}-{width}"
    page = guest(language=language, width=width, scheme=scheme)
    sign_in(page, shared, name=name)
    expect(page.locator("html")).to_have_attribute("data-live", "on")
    end_sessions(shared, name)
    page.evaluate("import('/static/js/refresh.js').then(({ refresh }) => void refresh())")  # as it does by itself
    page.wait_for_url("**/sign-in?**")  # the overview it leaves may have messages of its own
    expect(page.locator(".message")).to_have_text(said["sign_in.ended"])
    look(page, f"sign-in-ended-{language}-{width}-{scheme}", width=width)
    other = "ru" if language == "en" else "en"
    page.goto(f"{shared.url}/jobs")
    expect(page.locator(".message")).to_have_text(said["sign_in.ended"])
    page.locator(f".languages a[lang={other}]").click()
    expect(page.locator(".message")).to_have_text(words(other)["sign_in.ended"])
    fill(page, name=name, password=PASSWORD)
    expect(page).to_have_url(f"{shared.url}/jobs")


def test_it_works_on_a_plain_http_address_of_the_studio_s_network(guest: Guest, shared: Installation) -> None:
    page = guest(width=360)
    sign_in(page, shared, host=LAN_HOST)
    assert page.evaluate("isSecureContext") is False
    page.locator(".account summary").click()
    page.get_by_role("button", name="Sign out", exact=True).click()
    expect(page.locator("h1")).to_have_text("Sign in")


def test_without_javascript_one_signs_in_and_out(guest: Guest, shared: Installation) -> None:
    page = guest(javascript=False)
    sign_in(page, shared)
    page.locator(".account summary").click()
    page.get_by_role("button", name="Sign out", exact=True).click()
    expect(page.locator("h1")).to_have_text("Sign in")


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_the_account_s_menu_is_whole(
    guest: Guest, shared: Installation, language: str, width: int, scheme: str
) -> None:
    page = guest(language=language, width=width, scheme=scheme)
    sign_in(page, shared)
    page.locator(".account summary").click()
    look(page, f"menu-{language}-{width}-{scheme}", width=width, full=False)
    page.keyboard.press("Escape")
    expect(page.locator(".panel")).to_be_hidden()


def test_the_language_is_chosen_at_the_door_then_by_the_account(guest: Guest, shared: Installation) -> None:
    page = guest(language="en")
    page.goto(f"{shared.url}/sign-in?next=/jobs")
    page.get_by_role("link", name="Русский").click()
    expect(page).to_have_url(f"{shared.url}/sign-in?next=/jobs")
    expect(page.locator("h1")).to_have_text(words("ru")["sign_in.title"])
    account(shared, "polyglot")
    fill(page, name="polyglot", password=PASSWORD)
    expect(page.locator("h1")).to_have_text(words("ru")["jobs.title"])
    for chosen, language in (("English", "en"), ("Русский", "ru"), (words("ru")["frame.browsers"], "en")):
        page.locator(".account summary").click()
        page.get_by_role("button", name=chosen).click()
        expect(page.locator("html")).to_have_attribute("lang", language)


def test_an_account_sees_what_it_may(guest: Guest, shared: Installation) -> None:
    page = guest()
    sign_in(page, shared, name="counter", permissions=["stats:read"])
    names = page.locator("nav.side a").all_inner_texts()
    assert names == ["Overview", "Statistics", "API"]
    page.goto(f"{shared.url}/jobs")
    expect(page.locator("h1")).to_have_text("Your account may not do that")
