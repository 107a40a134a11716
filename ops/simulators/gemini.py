"""Gemini's ``generateContent`` and Files API, as google-genai speaks them."""

from __future__ import annotations

import base64
import itertools
import re
from typing import Any, ClassVar

from ops.simulators import Call, Reply, Simulator, encoded, kind_of, main, picture

MIME = {"image/jpeg", "image/png", "image/webp", "image/heic", "image/heif"}
#: Bytes of a whole request; larger pictures go by the Files API.
MAX_REQUEST_BYTES = 20 * 1024**2
_PER_MINUTE = "GenerateRequestsPerMinutePerProjectPerModel"
_PER_DAY = "GenerateRequestsPerDayPerProjectPerModel"


class Gemini(Simulator):
    """Modes: ``finish_<REASON>`` and ``block_<REASON>`` answer 200 without a picture, ``text_only`` with words."""

    name = "gemini"
    OWN: ClassVar[dict[str, str]] = {
        "text_only": "200, words instead of a picture",
        "no_candidates": "200, nothing in it",
        "thought_only": "200, the picture only as a thought",
        "retiring": "the picture, from a model that is about to be retired",
        **{
            f"finish_{reason}": f"200 without a picture, finish reason {reason}"
            for reason in (
                "SAFETY", "PROHIBITED_CONTENT", "SPII", "RECITATION", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT",
                "IMAGE_RECITATION", "NO_IMAGE", "IMAGE_OTHER",
            )
        },
        **{
            f"block_{reason}": f"200 without candidates, block reason {reason}"
            for reason in ("SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY")
        },
    }  # fmt: skip

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.files: dict[str, tuple[str, bytearray]] = {}
        #: What becomes of an uploaded file: ACTIVE, PROCESSING for ever, or FAILED.
        self.file_state = "ACTIVE"
        self._numbers = itertools.count(1)

    async def answer(self, call: Call) -> Reply | str:
        if call.headers.get("x-goog-api-key") not in self.keys and not call.path.startswith("/upload/resume/"):
            given = call.headers.get("x-goog-api-key")
            return _error(400, "INVALID_ARGUMENT", f"API key not valid. Please pass a valid API key. (It was {given})")
        if match := re.fullmatch(r"/v1(?:beta)?/models/([^/:]+):generateContent", call.path):
            return await self._generate(match[1], call)
        if re.fullmatch(r"/v1(?:beta)?/models", call.path):
            self.note("models", call)
            return Reply({"models": []})
        if call.path.startswith("/upload/"):
            return self._upload(call)
        if match := re.fullmatch(r"/v1(?:beta)?/(files/[^/]+)", call.path):
            return self._file(match[1], call)
        self.note("elsewhere", call)
        return _error(404, "NOT_FOUND", f"no such method: {call.path}")

    async def _generate(self, model: str, call: Call) -> Reply | str:
        mode = self.paid("generate", call)
        await self.pause()
        if mode in _ERRORS:
            return _ERRORS[mode]()
        if mode in ("hang", "hang_after_headers", "trickle", "html", "redirect", "huge", "gzip_bomb"):
            return mode
        if len(call.body) > MAX_REQUEST_BYTES:
            return _error(400, "INVALID_ARGUMENT", "Request payload size exceeds the limit: 20971520 bytes.")
        if int(call.headers.get("x-server-timeout", "10")) < 10:
            return _error(
                400, "INVALID_ARGUMENT", "Manually set deadline is too short. Minimum allowed deadline is 10s."
            )
        pictures = self._pictures(call.json())
        if isinstance(pictures, Reply):
            return pictures
        return self._answered(mode, model, pictures[0])

    def _pictures(self, body: dict[str, Any]) -> list[bytes] | Reply:
        """Every picture of the request, looked at as the real server would."""
        found = []
        for content in body["contents"]:
            for part in (lower_camel(one) for one in content["parts"]):
                if inline := part.get("inlineData"):
                    mime, data = inline["mimeType"], decoded(inline["data"])
                elif file := part.get("fileData"):
                    name = "files/" + file["fileUri"].rpartition("/")[2]
                    if name not in self.files:
                        return _error(403, "PERMISSION_DENIED", f"You do not have permission to access {name}")
                    mime, data = file["mimeType"], bytes(self.files[name][1])
                else:
                    continue
                if mime not in MIME or (kind_of(data) not in (mime, None)):
                    return _error(400, "INVALID_ARGUMENT", f"Unsupported MIME type: {mime}")
                found.append(data)
        return found or _error(400, "INVALID_ARGUMENT", "No picture in the request")

    def _answered(self, mode: str, model: str, photo: bytes) -> Reply:
        if mode.startswith("block_"):
            return self._said(model, candidates=None, promptFeedback={"blockReason": mode.removeprefix("block_")})
        if mode == "no_candidates":
            return self._said(model, candidates=None)
        parts: list[dict[str, Any]] = []
        reason = "STOP"
        if mode.startswith("finish_"):
            reason = mode.removeprefix("finish_")
        elif mode == "text_only":
            parts = [{"text": "I would rather describe the photo in words."}]
        else:
            data = picture(mode, photo, "PNG" if mode != "wrong_mime" else "GIF")
            shown = {"inlineData": {"mimeType": "image/png", "data": encoded(data)}}
            parts = [{"text": "thinking", "thought": True}, {**shown, "thought": mode == "thought_only"}]
        extra = (
            {"modelStatus": {"modelStage": "DEPRECATED", "retirementTime": "2027-01-15T00:00:00Z"}}
            if mode == "retiring"
            else {}
        )
        candidate = {"content": {"role": "model", "parts": parts}, "finishReason": reason, "index": 0}
        return self._said(model, candidates=[candidate], **extra)

    def _said(self, model: str, **what: Any) -> Reply:
        return Reply(
            {
                **{name: value for name, value in what.items() if value is not None},
                "modelVersion": model,
                "responseId": f"response-{next(self._numbers)}",
                "usageMetadata": {"promptTokenCount": 800, "candidatesTokenCount": 1290, "totalTokenCount": 2090},
            }
        )

    # -- files -------------------------------------------------------------------------------------------------------

    def _upload(self, call: Call) -> Reply:
        if not call.path.startswith("/upload/resume/"):
            self.note("upload", call)
            name = f"files/f{next(self._numbers)}"
            self.files[name] = (call.headers["x-goog-upload-header-content-type"], bytearray())
            address = f"{self.url}/upload/resume/{name}"
            return Reply({}, headers={"x-goog-upload-url": address, "x-goog-upload-status": "active"})
        name = call.path.removeprefix("/upload/resume/")
        self.files[name][1].extend(call.body)
        final = "finalize" in call.headers["x-goog-upload-command"]
        body = {"file": self._described(name, "PROCESSING")} if final else {}
        return Reply(body, headers={"x-goog-upload-status": "final" if final else "active"})

    def _file(self, name: str, call: Call) -> Reply:
        if name not in self.files:
            return _error(404, "NOT_FOUND", name)
        if call.method == "DELETE":
            self.note("delete", call)
            del self.files[name]
            return Reply({})
        self.note("look", call)
        return Reply(self._described(name, self.file_state))

    def _described(self, name: str, state: str) -> dict[str, Any]:
        mime, data = self.files[name]
        uri = f"{self.url}/v1beta/{name}"
        return {"name": name, "mimeType": mime, "sizeBytes": str(len(data)), "uri": uri, "state": state}


def decoded(data: str) -> bytes:
    """protobuf's JSON reader takes both alphabets of base64; the SDK writes the one for URLs."""
    return base64.b64decode(data.replace("-", "+").replace("_", "/"))


def lower_camel(value: Any) -> Any:
    """protobuf's JSON reader takes both spellings of a name; the SDK writes both."""
    if isinstance(value, dict):
        return {re.sub(r"_([a-z])", lambda m: m[1].upper(), name): lower_camel(one) for name, one in value.items()}
    return value


def _error(code: int, status: str, message: str, *details: dict[str, Any]) -> Reply:
    return Reply({"error": {"code": code, "message": message, "status": status, "details": list(details)}}, code)


def _quota(quota: str, value: str, delay: str | None) -> Reply:
    details: list[dict[str, Any]] = [
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaId": quota, "quotaValue": value}],
        }
    ]
    if delay:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    return _error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", *details)


_ERRORS = {
    "http_500": lambda: _error(500, "INTERNAL", "An internal error has occurred."),
    "http_503": lambda: _error(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "http_429": lambda: _error(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted."),
    "http_429_hint": lambda: _quota(_PER_MINUTE, "500", "1s"),
    "quota": lambda: _quota(_PER_DAY, "2000", "40s"),
    "auth": lambda: _error(403, "PERMISSION_DENIED", "Your API key was reported as leaked."),
    "bad_request": lambda: _error(400, "INVALID_ARGUMENT", "image_config.image_size is not supported by this model."),
}

if __name__ == "__main__":
    main(Gemini)
