"""``T_sync_response``, ``T_public_link_ttl``, ``T_result_retention``, ``T_original_retention`` as pure arithmetic.

That a setting changed in between alters nothing is shown on rows, in ``integration/test_times.py``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from photochanger import deadlines

CREATED = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)
seconds = st.integers(10, 60).map(lambda s: timedelta(seconds=s))


@pytest.mark.parametrize("t_sync", [10, 48, 60])
def test_t_sync_response_counts_from_the_requests_begin(t_sync: int) -> None:
    assert deadlines.expires_at(CREATED, timedelta(seconds=t_sync)) == CREATED + timedelta(seconds=t_sync)


@given(seconds, seconds)
def test_t_public_link_ttl_is_never_extended_by_a_later_setting(then: timedelta, now: timedelta) -> None:
    expires = deadlines.expires_at(CREATED, then)
    assert deadlines.temporary_expires_at(expires, CREATED, now) <= expires


def test_t_result_retention_counts_from_the_end_whatever_the_deadline_was() -> None:
    finalized = CREATED + timedelta(seconds=31)
    assert deadlines.result_expires_at(finalized, timedelta(hours=72)) == finalized + timedelta(hours=72)


@given(st.integers(0, 720), st.integers(24, 720))
def test_t_original_retention_never_outlives_the_result(original_h: int, result_h: int) -> None:
    original = deadlines.original_expires_at(CREATED, timedelta(hours=original_h), timedelta(hours=result_h))
    assert original <= deadlines.result_expires_at(CREATED, timedelta(hours=result_h))


@given(st.floats(-10, 100), st.none() | st.floats(0.1, 60), st.floats(0, 5), st.floats(0, 30))
def test_an_attempt_never_eats_what_is_kept_for_storing_and_for_the_next_rung(
    remaining: float, timeout: float | None, store: float, after: float
) -> None:
    budget = deadlines.attempt_budget_s(remaining, provider_timeout_s=timeout, store_s=store, next_rung_s=after)
    assert budget >= 0
    assert budget <= max(0.0, remaining - store - after)
    assert timeout is None or budget <= timeout
