"""Failure codes: one class, one status, one shape each."""

from __future__ import annotations

import ast
import inspect

import pytest

from photochanger import failures
from photochanger.failures import BY_CODE, Failure, FieldError, InternalError
from web import problems


def test_every_code_has_a_status_and_every_status_a_code() -> None:
    assert set(BY_CODE) == set(problems.STATUS)


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_every_failure_makes_a_whole_problem(code: str) -> None:
    body = problems.problem(BY_CODE[code]("because"), job_id="j")
    assert body["code"] == code
    assert body["status"] == problems.STATUS[code]
    assert body["detail"] == "because"
    assert body["title"]
    assert "\n" not in body["title"]
    assert isinstance(body["retryable"], bool)


def test_a_failure_without_words_says_its_title() -> None:
    assert failures.SlotNotFound().detail == "There is no such slot"


def test_field_errors_are_carried_over() -> None:
    body = problems.problem(failures.InvalidSettings("x", errors=[FieldError("a.b", "missing", "is missing")]))
    assert body["errors"] == [{"field": "a.b", "code": "missing", "message": "is missing"}]


def test_an_unknown_code_in_a_row_becomes_an_internal_error() -> None:
    assert isinstance(failures.from_code("from_the_future"), InternalError)


def test_the_drawn_tree_names_every_class() -> None:
    drawn = ast.get_docstring(ast.parse(inspect.getsource(failures))) or ""
    classes: set[type[Failure]] = {Failure, *BY_CODE.values()}
    for cls in classes:
        assert cls.__name__ in drawn
