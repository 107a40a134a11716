"""What somebody else's words may do to our log: nothing."""

from __future__ import annotations

import logging
import sys

from photochanger.logs import _Text


def test_a_value_is_one_line_of_plain_characters_in_a_text_log() -> None:
    given = {"path": "/a\n12:00:00 INFO    login.succeeded", "detail": "\x1b[2J\x9b2J\r\u202eФото\ud800"}
    record = logging.makeLogRecord({"msg": "request.finished", "levelname": "INFO", "fields": given})
    line = _Text().format(record)
    assert line.isprintable()
    assert line.endswith(r"path=/a\n12:00:00 INFO    login.succeeded detail=\x1b[2J\x9b2J\r\u202eФото\ud800")


def test_no_line_of_a_trace_begins_as_an_event_does() -> None:
    try:
        raise ValueError("x\n12:00:00 INFO    login.succeeded\x1b[2J")
    except ValueError:
        record = logging.makeLogRecord({"msg": "request.broken", "levelname": "ERROR", "exc_info": sys.exc_info()})
    first, *trace = _Text().format(record).split("\n")
    assert first.isprintable()
    assert len(trace) > 3
    assert all(line.startswith("    ") and line.isprintable() for line in trace)
