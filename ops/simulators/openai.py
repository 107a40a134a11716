"""OpenAI's ``POST /v1/images/edits``."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

from ops.simulators import Call, Reply, Simulator, encoded, kind_of, main, picture

MIME = {"image/jpeg", "image/png", "image/webp"}
MAX_BYTES = 50_000_000
MAX_PICTURES = 16
MAX_PROMPT = 32_000
FIELDS = {"model", "prompt", "n", "size", "quality", "output_format", "output_compression", "image[]"}


class OpenAI(Simulator):
    """A form with pictures in, one picture as base64 out."""

    name = "openai"
    OWN: ClassVar[dict[str, str]] = {
        "moderation": "400, moderation_blocked",
        "no_image": "200 without a picture",
        "not_base64": "200, a picture that is not base64",
    }

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self._numbers = itertools.count(1)

    async def answer(self, call: Call) -> Reply | str:
        if (call.path, call.method) not in (("/v1/images/edits", "POST"), ("/v1/models", "GET")):
            self.note("elsewhere", call)
            return self._error(404, "not_found", "Unknown request URL")
        if call.headers.get("authorization", "").removeprefix("Bearer ") not in self.keys:
            given = call.headers.get("authorization")
            return self._error(401, "invalid_api_key", f"Incorrect API key provided: {given}")
        if call.method == "GET":
            self.note("models", call)
            return self._with_id(Reply({"object": "list", "data": []}))
        mode = self.paid("edit", call)
        await self.pause()
        if mode in _ERRORS:
            status, code, message, headers = _ERRORS[mode]
            return self._error(status, code, message, headers)
        if mode in ("hang", "hang_after_headers", "trickle", "html", "redirect", "huge", "gzip_bomb"):
            return mode
        parts = call.multipart()
        pictures = [part for name, part in parts if name == "image[]"]
        fields = {name: part.data.decode() for name, part in parts if name != "image[]"}
        if refusal := self._refusal(fields, pictures, {name for name, _ in parts}):
            return refusal
        return self._edited(mode, fields, pictures[0].data)

    def _refusal(self, fields: dict[str, str], pictures: list[Any], names: set[str]) -> Reply | None:
        if unknown := names - FIELDS:
            return self._error(400, "unknown_parameter", f"Unknown parameter: {unknown}")
        if not 1 <= len(pictures) <= MAX_PICTURES:
            return self._error(400, "invalid_value", "Between 1 and 16 images are taken")
        if any(one.mime not in MIME or kind_of(one.data) != one.mime or len(one.data) >= MAX_BYTES for one in pictures):
            return self._error(400, "invalid_image_file", "Invalid image file")
        if not 1 <= len(fields.get("prompt", "")) <= MAX_PROMPT:
            return self._error(400, "string_above_max_length", "prompt")
        if fields.get("output_format", "png") not in ("jpeg", "png", "webp"):
            return self._error(400, "invalid_value", "output_format")
        return None

    def _edited(self, mode: str, fields: dict[str, str], photo: bytes) -> Reply:
        form = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}[fields.get("output_format", "png")]
        data: list[dict[str, str]] = [{"b64_json": encoded(picture(mode, photo, form))}]
        if mode == "no_image":
            data = []
        elif mode == "not_base64":
            data = [{"b64_json": "%%% not base64 %%%"}]
        usage = {"input_tokens": 300, "output_tokens": 1056, "total_tokens": 1356}
        return self._with_id(Reply({"created": 1795000000, "data": data, "usage": usage}))

    def _error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Reply:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        return self._with_id(Reply({"error": error}, status, dict(headers or {})))

    def _with_id(self, reply: Reply) -> Reply:
        reply.headers["x-request-id"] = f"req_{next(self._numbers)}"
        return reply


_ERRORS: dict[str, tuple[int, str, str, dict[str, str]]] = {
    "http_500": (500, "server_error", "The server had an error", {}),
    "http_503": (503, "overloaded", "The engine is overloaded", {}),
    "http_429": (429, "rate_limit_exceeded", "Rate limit reached", {}),
    "http_429_hint": (429, "rate_limit_exceeded", "Rate limit reached", {"retry-after": "1"}),
    "quota": (429, "insufficient_quota", "You exceeded your current quota", {"retry-after": "1"}),
    "auth": (401, "invalid_api_key", "Incorrect API key provided", {}),
    "bad_request": (400, "invalid_value", "Invalid value: size", {}),
    "moderation": (400, "moderation_blocked", "Your request was rejected by the safety system", {}),
}

if __name__ == "__main__":
    main(OpenAI)
