"""The live stream: what it tells, and when it ends."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.api import HASHED, PASSWORD, Api
from tests.installation import Installation, until
from tests.photos import photo

pytestmark = pytest.mark.xdist_group("api")

Event = tuple[str, Any]


class Stream:
    """What a reader of the stream has got."""

    def __init__(self) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.ended = threading.Event()

    def first(self, fits: Callable[[Event], bool], *, within_s: float, what: str) -> Event:
        give_up = time.monotonic() + within_s
        while True:
            try:
                event = self.events.get(timeout=max(0.01, give_up - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{what}: not within {within_s} s") from None
            if fits(event):
                return event


@contextlib.contextmanager
def watching(url: str, headers: dict[str, str]) -> Iterator[Stream]:
    stream = Stream()
    with (
        httpx.Client(trust_env=False, timeout=40) as client,
        client.stream("GET", f"{url}/api/events", headers=headers) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "private, no-store"

        def read() -> None:
            name = ""
            with contextlib.suppress(httpx.HTTPError):
                for line in response.iter_lines():
                    field, _, value = line.partition(": ")
                    if field == "event":
                        name = value
                    elif field == "data":
                        stream.events.put((name, json.loads(value)))
            stream.ended.set()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        yield stream
        response.close()
    reader.join(5)


def bearer(api: Api, name: str) -> dict[str, str]:
    api.account(name)
    return {"Authorization": f"Bearer {api.login(name).json()['access_token']}"}


def test_a_photo_is_seen_as_it_is_made_and_ends(house: Installation, known: Api) -> None:
    with watching(house.url, bearer(known, "watcher")) as stream:
        assert stream.events.get(timeout=5) == ("hello", {})
        stream.first(lambda event: event[0] == "queue", within_s=5, what="how the queue stands")
        sent = house.post(photo(64, 48))
        job_id = sent.headers["x-job-id"]

        def its_end(event: Event) -> bool:
            return event[0] == "job" and event[1]["job_id"] == job_id and event[1]["status"] == "succeeded"

        _, news = stream.first(its_end, within_s=5, what="the photo's end")
    assert (news["slot_id"], news["served_by"], news["is_test"]) == ("slot-001", "local/filter", False)
    assert httpx.get(f"{house.url}{news['picture']}", trust_env=False).content == sent.content


def test_the_stream_ends_when_its_session_does_however_much_there_is_to_tell(house: Installation, known: Api) -> None:
    headers = bearer(known, "signed-out")
    with watching(house.url, headers) as stream:
        stream.first(lambda event: event[0] == "hello", within_s=5, what="hello")
        assert httpx.post(f"{house.url}/api/logout", headers=headers, trust_env=False).status_code == 204
        began = time.monotonic()
        while not stream.ended.wait(0.5):
            house.post(photo(64, 48))  # there is always something to tell
            assert time.monotonic() - began < 20


def test_the_stream_ends_when_its_reader_may_no_longer_read_jobs(house: Installation, known: Api) -> None:
    with watching(house.url, bearer(known, "demoted")) as stream:
        stream.first(lambda event: event[0] == "hello", within_s=5, what="hello")
        known.sql("UPDATE account SET permissions = '{}' WHERE name = 'demoted'")
        assert stream.ended.wait(20)


def test_who_watches_more_than_can_be_looked_at_is_told_so(house: Installation, known: Api) -> None:
    house.post(photo(64, 48))
    with watching(house.url, bearer(known, "flooded")) as stream:
        stream.first(lambda event: event[0] == "queue", within_s=5, what="the first look")
        known.sql(
            "INSERT INTO job (id, slot_id, status, created_at, expires_at, finalized_at, is_finalized, is_test,"
            " failure_reason, snapshot, payload_mime, payload_bytes, payload_sha256)"
            " SELECT gen_random_uuid(), slot_id, 'cancelled',"
            " clock_timestamp(), clock_timestamp(), clock_timestamp(), true, true, 'cancelled', snapshot, payload_mime,"
            " payload_bytes, payload_sha256 FROM generate_series(1, 500), (SELECT * FROM job LIMIT 1) AS job"
        )
        stream.first(lambda event: event[0] == "missed", within_s=10, what="it is told")
    known.sql("DELETE FROM job WHERE status = 'cancelled' AND is_test AND created_at = expires_at")


def test_a_server_that_is_told_to_stop_does_although_somebody_watches(installation: Installation) -> None:
    installation.sql(
        "INSERT INTO account (name, password_hash, permissions, must_change) VALUES ('boss', %s, '{jobs:read}', false)",
        HASHED,
    )
    given = {"name": "boss", "password": PASSWORD}
    token = httpx.post(f"{installation.url}/api/login", json=given, trust_env=False).json()["access_token"]
    web = installation.part("web")
    with watching(installation.url, {"Authorization": f"Bearer {token}"}) as stream:
        stream.first(lambda event: event[0] == "hello", within_s=5, what="hello")
        web.terminate()
        assert stream.ended.wait(5)
        until(lambda: not web.is_running(), within_s=10, what="the web process has ended")
