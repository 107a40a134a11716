"""Turbotext's three picture methods: a queue, polling, and a result to be downloaded."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import httpx

from ops.simulators import Call, Reply, Simulator, kind_of, main, picture

MIME = {"image/jpeg", "image/png", "image/webp"}
#: Which fields of each method hold pictures, the photo's first; and which others it takes.
METHODS = {
    "generate_image2image": (
        ("url",),
        {"content", "strength", "seed", "scale", "negative_prompt", "original_language", "user_id"},
    ),
    "mix_images": (("url_image_target", "url"), {"content"}),
    "deepfake_photo": (("url_image_target", "url"), {"face_restore"}),
}
_AT_DOWNLOAD = {"huge", "gzip_bomb", "html", "hang", "hang_after_headers", "trickle"}


class Turbotext(Simulator):
    """``polls`` answers say "reconnect" before the result is there."""

    name = "turbotext"
    OWN: ClassVar[dict[str, str]] = {
        "declined": "create_queue answers success: false",
        "failed": "get_result answers success: false",
        "forbidden": "get_result answers forbidden_content",
        "no_address": "done, without uploaded_image",
        "hanging_poll": "the first poll is never answered",
        "busy_polls": "the first two polls are answered with 429 and a long Retry-After",
        "never_done": "get_result says reconnect for ever",
        "broken_polls": "the first two polls fail with 502",
        "garbled_polls": "the first two polls are answered with a page",
        "late_file": "the result's address answers 404 twice",
        "moved": "the result's address redirects",
        "inner_address": "the result's address is inside the caller's network",
        **{f"result_{mode}": f"the result: {Simulator.MODES[mode]}" for mode in sorted(_AT_DOWNLOAD)},
    }

    def __init__(self, *, polls: int = 1, **how: Any) -> None:
        super().__init__(**how)
        self.polls = polls
        self.jobs: dict[str, dict[str, Any]] = {}
        self.hosted: dict[str, tuple[str, bytes]] = {}
        self.words = "the balance is too low"
        self.inner_address = "https://127.0.0.1/secret.jpg"
        self._numbers = itertools.count(1001)

    def host(self, data: bytes, mime: str = "image/jpeg") -> str:
        """Gives ``data`` an address here, in place of a public PhotoChanger."""
        name = f"h{next(self._numbers)}"
        self.hosted[name] = (mime, data)
        return f"{self.url}/hosted/{name}"

    async def answer(self, call: Call) -> Reply | str:
        _, area, *rest = call.path.split("/")
        if area == "hosted" and rest and rest[0] in self.hosted:
            mime, data = self.hosted[rest[0]]
            return Reply(data, headers={"content-type": mime})
        if area == "results" and rest:
            return self._result_file(rest[0].removesuffix(".jpg"), call)
        method = call.path.rpartition("/")[2]
        if method not in METHODS or call.method != "POST":
            self.note("elsewhere", call)
            return Reply({"success": False, "error": "unknown method"}, 404)
        if call.headers.get("authorization", "").removeprefix("Bearer ") not in self.keys:
            return Reply({"success": False, "error": f"wrong key: {call.headers.get('authorization')}"}, 401)
        form = call.form()
        if form.get("do") == "create_queue":
            return await self._create(method, form, call)
        if form.get("do") == "get_result":
            return self._poll(form.get("queueid", ""), call)
        return Reply({"success": False, "error": "unknown do"})

    async def _create(self, method: str, form: dict[str, str], call: Call) -> Reply | str:
        mode = self.paid("create_queue", call)
        await self.pause()
        if mode in _ERRORS:
            return _ERRORS[mode]
        if mode in ("hang", "hang_after_headers", "trickle", "html", "redirect", "huge", "gzip_bomb"):
            return mode
        pictures, others = METHODS[method]
        if unknown := set(form) - {"do", *pictures, *others}:
            return Reply({"success": False, "error": f"unknown parameter: {', '.join(sorted(unknown))}"})
        if mode == "declined":
            return Reply({"success": False, "error": self.words})
        async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
            fetched = [await http.get(form[name]) for name in pictures]
        if wrong := [one.url for one in fetched if one.status_code != 200 or kind_of(one.content) not in MIME]:
            return Reply({"success": False, "error": f"no JPEG, PNG or WebP at {wrong[0]}"})
        queue_id = str(next(self._numbers))
        self.jobs[queue_id] = {"mode": mode, "polls": self.polls, "photo": fetched[0].content, "lost": 2}
        return Reply({"success": True, "queueid": int(queue_id)})

    def _poll(self, queue_id: str, call: Call) -> Reply | str:
        self.note("get_result", call)
        job = self.jobs.get(queue_id)
        if job is None:
            return Reply({"success": False, "error": "unknown queueid"})
        mode = job["mode"]
        if mode in ("broken_polls", "garbled_polls") and job["lost"]:
            job["lost"] -= 1
            return Reply(b"<html>Bad Gateway</html>", 502 if mode == "broken_polls" else 200)
        if mode == "hanging_poll" and job["lost"] == 2:
            job["lost"] -= 1
            return "hang"
        if mode == "busy_polls" and job["lost"]:
            job["lost"] -= 1
            return Reply({"success": False, "error": "too many requests"}, 429, {"retry-after": "60"})
        if job["polls"] > 0 or mode == "never_done":
            job["polls"] -= 1
            return Reply({"action": "reconnect"})
        if mode == "failed":
            return Reply({"success": False, "error": "generation failed"})
        if mode == "forbidden":
            return Reply({"success": True, "data": {"forbidden_content": True}})
        if mode == "no_address":
            return Reply({"success": True, "data": {}})
        address = self.inner_address if mode == "inner_address" else f"{self.url}/results/{queue_id}.jpg"
        return Reply({"success": True, "uploaded_image": address, "data": {"forbidden_content": False}})

    def _result_file(self, queue_id: str, call: Call) -> Reply | str:
        self.note("download", call)
        job = self.jobs.get(queue_id)
        if job is None:
            return Reply(b"not found", 404)
        mode = job["mode"]
        if mode == "late_file" and job["lost"]:
            job["lost"] -= 1
            return Reply(b"not found", 404)
        if mode == "moved":
            return "redirect"
        if mode.startswith("result_"):
            return str(mode.removeprefix("result_"))
        return Reply(picture(mode, job["photo"]), headers={"content-type": "image/jpeg"})


_ERRORS = {
    "http_500": Reply(b"Internal Server Error", 500),
    "http_503": Reply(b"Service Unavailable", 503),
    "http_429": Reply({"success": False, "error": "too many requests"}, 429),
    "http_429_hint": Reply({"success": False, "error": "too many requests"}, 429, {"retry-after": "1"}),
    "quota": Reply({"success": False, "error": "the limit of the day is reached"}, 429),
    "auth": Reply({"success": False, "error": "wrong key"}, 401),
    "bad_request": Reply({"success": False, "error": "strength is out of range"}),
}

if __name__ == "__main__":
    main(Turbotext)
