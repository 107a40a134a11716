"""Users in a real browser: made, limited, switched off, and never the last one who may manage them."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from photochanger.permissions import PERMISSIONS
from tests.installation import Installation
from tests.ui.conftest import Guest
from tests.ui.signed_in import LOOKS, account, check_focus, look, sign_in
from web.pages import words

pytestmark = pytest.mark.xdist_group("studio")
EN = words("en")


@pytest.mark.parametrize(("language", "width", "scheme"), LOOKS)
def test_the_users_are_whole(guest: Guest, studio: Installation, language: str, width: int, scheme: str) -> None:
    account(studio, "anna", ("slots:read", "jobs:read"), must_change=True)
    page = guest(language=language, width=width, scheme=scheme)
    sign_in(page, studio, path="/users")
    expect(page.locator("h1")).to_have_text(words(language)["users.title"])
    page.locator("#user-anna summary").click()
    look(page, f"users-{language}-{width}-{scheme}", width=width)
    check_focus(page)
    page.locator("[data-opens=new-user]").click()
    expect(page.locator("#new-user")).to_be_visible()
    look(page, f"users-new-{language}-{width}-{scheme}", width=width, full=False)


def test_a_new_user_signs_in_and_sees_only_what_they_may(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path="/users")
    page.locator("[data-opens=new-user]").click()
    page.locator("#new-name").fill("Bert")
    for one in PERMISSIONS:
        page.locator(f"[id='new-{one}']").set_checked(one in ("jobs:read", "stats:read"))
    page.get_by_role("button", name=EN["users.create"]).click()
    expect(page.locator("#made-title")).to_have_text("bert may sign in with this password.", timeout=15_000)
    password = page.locator("#made-password").inner_text()
    expect(page.locator("[data-user=bert]")).to_have_count(1)  # at once, beside the password that is shown
    names = page.locator("[data-user]").evaluate_all("(all) => all.map((one) => one.dataset.user)")
    assert names == sorted(names)
    page.locator("#user-bert summary").click()
    page.locator("[id='p-bert-slots:read']").check()
    page.locator("#user-bert").get_by_role("button", name=EN["users.save"]).click()
    expect(page.locator(".toast")).to_contain_text(EN["users.js.saved"])
    page.locator("[id='p-bert-slots:read']").uncheck()
    page.locator("#user-bert").get_by_role("button", name=EN["users.save"]).click()
    look(page, "users-made-en-1440-light", width=1440, full=False)
    page.get_by_role("link", name=EN["users.noted"]).click()
    expect(page.locator("#user-bert")).to_be_visible()
    assert password not in page.content()

    other = guest(language="en", width=360)
    other.goto(f"{studio.url}/sign-in")
    other.locator("#name").fill("bert")
    other.locator("#password").fill(password)
    other.locator("form button").click()
    expect(other.locator("h1")).to_have_text(EN["password.title"], timeout=15_000)
    other.locator("#old").fill(password)
    for field in ("#new", "#again"):
        other.locator(field).fill("bert's own long password")
    other.get_by_role("button", name=EN["password.go"]).click()
    expect(other.locator(".side")).to_be_visible(timeout=15_000)
    names = other.locator(".side a").all_inner_texts()
    assert names == [EN[f"nav.{one}"] for one in ("overview", "jobs", "gallery", "statistics", "docs")]
    for path, status in (("/statistics", 200), ("/settings", 403), ("/users", 403), ("/system", 403), ("/audit", 403)):
        answer = other.goto(f"{studio.url}{path}")
        assert answer is not None
        assert answer.status == status
    assert other.request.get(f"{studio.url}/api/users").status == 403


def test_a_name_that_cannot_be_is_told_in_our_own_words(guest: Guest, studio: Installation) -> None:
    page = guest(language="ru", width=360)
    sign_in(page, studio, path="/users")
    page.locator("[data-opens=new-user]").click()
    page.locator("#new-name").fill("Маша")
    page.get_by_role("button", name=words("ru")["users.create"]).click()
    expect(page.locator("[data-field=name] .error")).to_have_text(words("ru")["users.js.bad_name"])
    expect(page.locator("#new-name")).to_be_focused()
    look(page, "users-bad-name-ru-360-light", width=360, full=False)


def test_the_last_who_may_manage_users_stays(guest: Guest, studio: Installation) -> None:
    page = guest(language="ru", width=360)
    sign_in(page, studio, path="/users")
    studio.sql("UPDATE account SET is_active = false WHERE name <> 'studio'")
    page.reload()
    expect(page.locator("#user-studio")).to_contain_text(words("ru")["users.you"])
    page.locator("#user-studio summary").click()
    expect(page.locator("#user-studio .message")).to_have_text(words("ru")["users.is_last"])
    expect(page.locator("#user-studio [data-disable]")).to_be_disabled()
    page.locator("[id='p-studio-users:write']").uncheck()
    with page.expect_response("**/api/users/studio") as answered:
        page.locator("#user-studio").get_by_role("button", name=words("ru")["users.save"]).click()
    assert answered.value.status == 409
    expect(page.locator("#user-studio .permissions .error")).to_have_text(words("ru")["users.js.last"])
    look(page, "users-last-ru-360-light", width=360, full=False)
    studio.sql("UPDATE account SET is_active = true")


def test_a_user_is_switched_off_and_on_and_gets_a_new_password(guest: Guest, studio: Installation) -> None:
    account(studio, "carl", ("jobs:read",))
    page = guest()
    sign_in(page, studio, path="/users")
    person = page.locator("#user-carl")
    person.locator("summary").click()
    person.get_by_role("button", name=EN["users.sign_out"], exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name=EN["users.js.sign_out_go"], exact=True).click()
    expect(page.locator(".toast")).to_contain_text("carl is signed out everywhere")
    person.get_by_role("button", name=EN["users.new_password"]).click()
    page.get_by_role("dialog").get_by_role("button", name=EN["users.js.password_go"]).click()
    expect(page.locator("#made-title")).to_have_text("The new password of carl.", timeout=15_000)
    person.get_by_role("button", name=EN["users.disable"], exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name=EN["users.js.disable_go"], exact=True).click()
    expect(person).to_contain_text(EN["users.disabled"])
    expect(page.locator(".toast").last).to_contain_text("carl can no longer sign in")
    enable = person.get_by_role("button", name=EN["users.enable"], exact=True)
    expect(enable).to_be_focused()
    enable.click()
    expect(person).not_to_contain_text(EN["users.disabled"])
    expect(page.locator(".toast").last).to_contain_text("carl can sign in again")
    expect(person.get_by_role("button", name=EN["users.disable"], exact=True)).to_be_focused()


def test_a_name_that_is_taken_is_told_at_its_field(guest: Guest, studio: Installation) -> None:
    page = guest()
    sign_in(page, studio, path="/users")
    page.locator("[data-opens=new-user]").click()
    page.locator("#new-name").fill("studio")
    with page.expect_response("**/api/users") as answered:
        page.get_by_role("button", name=EN["users.create"]).click()
    assert answered.value.status == 409
    expect(page.locator("[data-field=name] .error")).to_have_text(EN["users.js.taken"])
