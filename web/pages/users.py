"""``/users``: who may sign in, and what each may do."""

from __future__ import annotations

import falcon.asgi

from photochanger import accounts
from photochanger.db import Row
from photochanger.permissions import PERMISSIONS
from web.pages.frame import Framed, page

#: Accounts shown; a studio has a handful.
MOST = 500
#: What is often given together, by the word's key ``preset.<name>``.
PRESETS = {
    "booth": ("slots:read", "jobs:read", "stats:read"),
    "operator": ("slots:read", "slots:write", "jobs:read", "jobs:write", "stats:read", "media:write", "settings:read"),
    "everything": PERMISSIONS,
}


class UsersPage(Framed):
    """GET: the accounts."""

    place = "users"

    @page("users:write")
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        rows = await accounts.listing(self._its.db, limit=MOST)
        keepers = [row["name"] for row in rows if _keeps(row)]
        self.show(
            req,
            resp,
            "users.html",
            users=rows,
            keepers=keepers,
            permissions=PERMISSIONS,
            presets=PRESETS,
            least=accounts.PASSWORD_CHARACTERS,
            password_most=accounts.PASSWORD_BYTES,
        )


def _keeps(row: Row) -> bool:
    """Whether an account may manage accounts."""
    return bool(row["is_active"]) and accounts.KEEPER in row["permissions"]
