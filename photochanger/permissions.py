"""What an account may be allowed to do."""

from __future__ import annotations

from typing import Literal, get_args

Permission = Literal[
    "slots:read",
    "slots:write",
    "settings:read",
    "settings:write",
    "jobs:read",
    "jobs:write",
    "stats:read",
    "media:write",
    "users:write",
    "audit:read",
]
PERMISSIONS: tuple[Permission, ...] = get_args(Permission)
#: Each in a sentence, for whoever gives it.
MEANINGS: dict[Permission, str] = {
    "slots:read": "Sees the slots, their routes, settings and latest pictures.",
    "slots:write": "Makes, changes and archives slots, and tries them.",
    "settings:read": "Sees the server's settings, never a key or a password.",
    "settings:write": "Changes the settings, the providers' keys and where they are sent, and the ingest password.",
    "jobs:read": "Sees the photos' jobs, with attempts, failures and pictures.",
    "jobs:write": "Cancels jobs and has them done again.",
    "stats:read": "Sees counts, times and costs.",
    "media:write": "Adds and deletes template pictures, and empties the cache.",
    "users:write": "Sees, makes, changes and disables accounts, and so may give itself anything else.",
    "audit:read": "Sees who did what.",
}
