"""The broker on dramatiq-pg's table: transactional enqueue, claims, leases, takeover, and stock workers kept off."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import psycopg
import pytest
from dramatiq.broker import MessageProxy
from sqlalchemy.ext.asyncio import create_async_engine

from photochanger.broker import messages
from photochanger.broker.consumer import DISCONNECTED_S, LEASE_S, LeasingConsumer
from tests.installation import until


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


Make = Callable[..., LeasingConsumer]


@pytest.fixture
def worker(database_url: str) -> Iterator[Make]:
    """Makes consumers as worker processes have them; all are closed at the end."""
    with ExitStack() as stack:

        def make(threads: int = 8, **options: Any) -> LeasingConsumer:
            consumer = LeasingConsumer(
                database_url,
                queue_name=messages.QUEUE,
                threads=threads,
                host="test",
                on_stop=options.pop("on_stop", lambda message_id: None),
                **options,
            )
            stack.callback(consumer.close)
            return consumer

        yield make


def send(connection: psycopg.Connection[Any], count: int = 1, **options: Any) -> list[str]:
    sent = [messages.message("noop", number=number) for number in range(count)]
    for message in sent:
        messages.enqueue_sync(connection, message, **options)
    return [message.message_id for message in sent]


def take(consumer: LeasingConsumer, count: int, within_s: float = 5.0) -> list[MessageProxy]:
    """The next ``count`` messages of a consumer."""
    taken: list[MessageProxy] = []
    give_up = time.monotonic() + within_s
    while len(taken) < count:
        assert time.monotonic() < give_up, f"{len(taken)} of {count} messages within {within_s} s"
        message = next(consumer)
        if message is not None:
            taken.append(message)
    return taken


def beat(consumer: LeasingConsumer) -> None:
    """One round of a consumer that has nothing to hand out."""
    assert next(consumer) is None


def states(connection: psycopg.Connection[Any]) -> dict[str, int]:
    rows = connection.execute("SELECT state::text, count(*) FROM dramatiq.queue GROUP BY 1").fetchall()
    return dict(rows)


def vanish(consumer: LeasingConsumer) -> None:
    """What a ``kill -9`` does to a consumer: its connection is gone and it never beats again."""
    assert consumer._connection is not None
    consumer._connection.close()


def test_a_row_that_is_no_message_is_set_aside_and_stops_nobody(
    connection: psycopg.Connection[Any], worker: Make
) -> None:
    for body in (None, "5", "{}", '{"actor_name": "no_such"}'):
        connection.execute(
            "INSERT INTO dramatiq.queue (message_id, queue_name, state, message) "
            "VALUES (gen_random_uuid(), %s, 'queued', %s)",
            (messages.QUEUE, body),
        )
    [sent] = send(connection)
    connection.execute(
        "INSERT INTO dramatiq.queue (message_id, queue_name, state, message) "
        "SELECT gen_random_uuid(), queue_name, 'queued', message FROM dramatiq.queue WHERE message_id = %s",
        (sent,),
    )
    consumer = worker()
    [taken] = take(consumer, 1)
    assert taken.message_id == sent
    assert states(connection) == {"rejected": 5, "consumed": 1}
    consumer.ack(taken)
    beat(consumer)
    assert states(connection) == {"rejected": 5}


# -- enqueue ---------------------------------------------------------------------------------------------------------


def test_a_thousand_random_rollbacks_leave_no_ghost_and_lose_nothing(connection: psycopg.Connection[Any]) -> None:
    chance = random.Random(20261123)
    kept = set()
    for number in range(1000):
        message = messages.message("noop", number=number)
        with suppress(ZeroDivisionError), connection.transaction():
            messages.enqueue_sync(connection, message)
            if chance.random() < 0.5:
                raise ZeroDivisionError
            kept.add(message.message_id)
    rows = connection.execute("SELECT message_id::text FROM dramatiq.queue").fetchall()
    assert {row[0] for row in rows} == kept
    assert 400 < len(kept) < 600


@pytest.mark.anyio
@pytest.mark.parametrize("commit", [True, False])
async def test_a_message_joins_an_sqlalchemy_transaction(
    database_url: str, connection: psycopg.Connection[Any], commit: bool, anyio_backend: str
) -> None:
    engine = create_async_engine(database_url)
    async with engine.connect() as theirs:
        await theirs.exec_driver_sql("INSERT INTO app_settings (key, value) VALUES ('x', '1')")
        raw = await theirs.get_raw_connection()
        assert isinstance(raw.driver_connection, psycopg.AsyncConnection)
        await messages.enqueue(raw.driver_connection, messages.message("noop"))
        assert states(connection) == {}
        await (theirs.commit() if commit else theirs.rollback())
    await engine.dispose()
    assert states(connection) == ({"queued": 1} if commit else {})


# -- claim -----------------------------------------------------------------------------------------------------------


def test_messages_come_first_in_first_out_within_their_priority(
    connection: psycopg.Connection[Any], worker: Make
) -> None:
    later = send(connection, 3, priority=5)
    sooner = send(connection, 3, priority=0)
    assert [message.message_id for message in take(worker(), 6)] == [*sooner, *later]


def test_a_worker_claims_no_more_than_it_has_free_threads(connection: psycopg.Connection[Any], worker: Make) -> None:
    send(connection, 10)
    consumer = worker(threads=3)
    taken = take(consumer, 3)
    beat(consumer)
    assert states(connection) == {"consumed": 3, "queued": 7}
    consumer.ack(taken[0])
    take(consumer, 1)
    assert states(connection) == {"consumed": 3, "queued": 6}


def test_finished_messages_leave_the_table(connection: psycopg.Connection[Any], worker: Make) -> None:
    send(connection, 5)
    consumer = worker()
    for message in take(consumer, 5):
        consumer.ack(message)
    beat(consumer)
    assert states(connection) == {}


def test_a_delayed_message_waits_in_the_table(connection: psycopg.Connection[Any], worker: Make) -> None:
    send(connection, 1, delay_ms=700)
    consumer = worker()
    began = time.monotonic()
    take(consumer, 1)
    assert 0.65 < time.monotonic() - began < 2.2


def test_the_doorbell_wakes_a_waiting_worker(connection: psycopg.Connection[Any], worker: Make) -> None:
    consumer = worker()
    beat(consumer)
    waited: list[float] = []

    def wait() -> None:
        take(consumer, 1)
        waited.append(time.monotonic())

    thread = threading.Thread(target=wait)
    thread.start()
    sent = time.monotonic()
    send(connection)
    thread.join(5)
    assert waited[0] - sent < 0.4, "sooner than any fallback poll"


def test_without_the_doorbell_a_message_is_found_all_the_same(
    connection: psycopg.Connection[Any], worker: Make
) -> None:
    consumer = worker(ring=False)
    beat(consumer)
    send(connection)
    began = time.monotonic()
    take(consumer, 1)
    assert time.monotonic() - began < 1.5


def test_two_workers_never_take_the_same_message(connection: psycopg.Connection[Any], worker: Make) -> None:
    send(connection, 200)
    taken: list[list[str]] = [[], []]

    def work(number: int) -> None:
        consumer = worker()
        give_up = time.monotonic() + 20
        while sum(map(len, taken)) < 200 and time.monotonic() < give_up:
            message = next(consumer)
            if message is not None:
                taken[number].append(message.message_id)
                consumer.ack(message)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(25)
    assert len({*taken[0], *taken[1]}) == len(taken[0]) + len(taken[1]) == 200


def test_a_rejected_message_stays_as_a_dead_letter(connection: psycopg.Connection[Any], worker: Make) -> None:
    send(connection)
    consumer = worker()
    consumer.nack(take(consumer, 1)[0])
    beat(consumer)
    assert states(connection) == {"rejected": 1}


# -- leases ----------------------------------------------------------------------------------------------------------


def test_the_work_of_a_killed_worker_is_taken_over_within_two_seconds(
    connection: psycopg.Connection[Any], worker: Make
) -> None:
    dead, survivor = worker(), worker()
    beat(survivor)
    ids = send(connection, 3)
    take(dead, 3)
    vanish(dead)
    began = time.monotonic()
    assert sorted(message.message_id for message in take(survivor, 3)) == sorted(ids)
    assert DISCONNECTED_S * 0.5 < time.monotonic() - began < 2.0


def test_a_worker_that_stands_still_is_taken_over_by_its_lease_within_five_seconds(
    connection: psycopg.Connection[Any], worker: Make
) -> None:
    still, survivor = worker(), worker()
    beat(survivor)
    send(connection)
    take(still, 1)
    began = time.monotonic()
    take(survivor, 1, within_s=6)
    assert LEASE_S * 0.8 < time.monotonic() - began < 5.0


def test_a_dead_worker_whose_row_a_paused_process_holds_stops_nobody_s_beat(
    connection: psycopg.Connection[Any], worker: Make
) -> None:
    dead, survivor = worker(), worker()
    beat(survivor)
    ids = send(connection, 2)
    take(dead, 2)
    with psycopg.connect(dead.url) as paused:
        paused.execute("SELECT FROM dramatiq.worker WHERE id = %s FOR KEY SHARE", (dead.worker_id,))
        vanish(dead)
        began = time.monotonic()
        while time.monotonic() - began < 2 * DISCONNECTED_S:
            beat(survivor)
        assert time.monotonic() - began < 2 * DISCONNECTED_S + 1
    assert sorted(message.message_id for message in take(survivor, 2)) == sorted(ids)


def test_a_worker_that_comes_back_finds_its_lease_gone_and_stops_its_work(
    connection: psycopg.Connection[Any], worker: Make
) -> None:
    stopped: list[str | None] = []
    still, survivor = worker(on_stop=stopped.append), worker()
    beat(survivor)
    (message_id,) = send(connection)
    (message,) = take(still, 1)
    take(survivor, 1, within_s=6)
    first_id = still.worker_id
    beat(still)
    assert stopped == [message_id]
    assert still.worker_id != first_id
    still.ack(message)
    beat(still)
    assert states(connection) == {"consumed": 1}, "the survivor's claim is untouched by the late acknowledgement"


def test_after_a_restart_of_postgresql_no_living_worker_is_taken_over(
    connection: psycopg.Connection[Any], worker: Make
) -> None:
    """The server's start time is what the guard looks at: a fresh server shields everyone for five seconds."""
    from photochanger.broker import consumer as module

    assert "pg_postmaster_start_time" in module._BEAT.decode()
    living, survivor = worker(), worker()
    send(connection)
    take(living, 1)
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'photochanger worker queue' AND datname = current_database()"
    )
    for _ in range(6):
        beat(living)
        beat(survivor)
    assert states(connection) == {"consumed": 1}
    assert connection.execute("SELECT worker_id FROM dramatiq.queue").fetchone() == (living.worker_id,)


def test_a_claim_whose_answer_was_lost_goes_back_at_the_next_beat(
    connection: psycopg.Connection[Any], worker: Make
) -> None:
    consumer = worker()
    beat(consumer)
    send(connection)
    connection.execute(
        "UPDATE dramatiq.queue SET state = 'consumed', worker_id = %s, mtime = now(), leased_at = now()",
        (consumer.worker_id,),
    )
    take(consumer, 1, within_s=3)


def test_a_draining_worker_claims_nothing_more_but_finishes(connection: psycopg.Connection[Any], worker: Make) -> None:
    send(connection, 2)
    consumer = worker(threads=1)
    (message,) = take(consumer, 1)
    consumer.drain()
    consumer.ack(message)
    beat(consumer)
    beat(consumer)
    assert states(connection) == {"queued": 1}
    assert connection.execute("SELECT draining FROM dramatiq.worker").fetchall() == [(True,)]


def test_a_worker_that_closes_gives_back_what_it_did_not_finish(
    connection: psycopg.Connection[Any], worker: Make
) -> None:
    send(connection, 3)
    consumer = worker()
    done, *_ = take(consumer, 3)
    consumer.ack(done)
    consumer.close()
    assert states(connection) == {"queued": 2}
    assert connection.execute("SELECT count(*) FROM dramatiq.worker").fetchone() == (0,)


def test_a_lost_connection_is_replaced_and_nothing_is_lost(connection: psycopg.Connection[Any], worker: Make) -> None:
    consumer = worker()
    send(connection, 3)
    taken = take(consumer, 3)
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'photochanger worker queue' AND datname = current_database()"
    )
    for message in taken:
        consumer.ack(message)
    until(lambda: next(consumer) is None and states(connection) == {}, within_s=5, what="acknowledged after all")
    send(connection)
    take(consumer, 1)


# -- stock workers ---------------------------------------------------------------------------------------------------


def test_a_stock_dramatiq_pg_worker_takes_nothing(
    database_url: str, connection: psycopg.Connection[Any], recwarn: pytest.WarningsRecorder
) -> None:
    import psycopg2
    from dramatiq_pg import PostgresBroker

    send(connection, 3)
    broker = PostgresBroker(url=database_url, results=False, middleware=[], schema="dramatiq", prefix="")
    stock = broker.consume(messages.QUEUE, prefetch=4, timeout=1000)
    try:
        with pytest.raises(psycopg2.errors.CheckViolation):
            next(stock)
    finally:
        stock.close()
        broker.pool.closeall()
    assert states(connection) == {"queued": 3}


# -- lanes -----------------------------------------------------------------------------------------------------------


def lane(connection: psycopg.Connection[Any], name: str, width: int) -> None:
    connection.execute(b"INSERT INTO dramatiq.lane VALUES (%s, %s)", (name, width))


def into(connection: psycopg.Connection[Any], ids: list[str], name: str, until_s: float | None = None) -> None:
    connection.execute(
        b"UPDATE dramatiq.queue SET lane = %s, lane_until = clock_timestamp() + %s * interval '1 second' "
        b"WHERE message_id = ANY(%s::uuid[])",
        (name, until_s, ids),
    )


def test_a_lane_is_claimed_no_wider_than_it_is_and_others_go_past(
    connection: psycopg.Connection[Any], worker: Make
) -> None:
    lane(connection, "gemini", 3)
    waiting = send(connection, 10)
    into(connection, waiting, "gemini")
    others = send(connection, 4)
    consumer = worker()
    got = [message.message_id for message in take(consumer, 7)]
    assert set(got) == {*waiting[:3], *others}
    assert states(connection) == {"consumed": 7, "queued": 7}


def test_a_lane_is_as_wide_for_all_workers_together(connection: psycopg.Connection[Any], worker: Make) -> None:
    lane(connection, "gemini", 3)
    waiting = send(connection, 10)
    into(connection, waiting, "gemini")
    first, second = worker(threads=2), worker(threads=8)
    held = take(first, 2)
    assert [message.message_id for message in take(second, 1)] == [waiting[2]]
    first.ack(held[0])
    assert [message.message_id for message in take(first, 1)] == [waiting[3]], "the next takes the place at once"
    assert states(connection) == {"consumed": 3, "queued": 6}


def test_who_has_waited_long_enough_for_its_lane_is_claimed_for_the_rest_of_its_route(
    connection: psycopg.Connection[Any], worker: Make
) -> None:
    lane(connection, "gemini", 1)
    waiting = send(connection, 3)
    into(connection, waiting, "gemini", until_s=60)
    into(connection, waiting[2:], "gemini", until_s=-1)
    assert {message.message_id for message in take(worker(), 2)} == {waiting[0], waiting[2]}


def test_a_lane_without_a_width_is_no_lane(connection: psycopg.Connection[Any], worker: Make) -> None:
    waiting = send(connection, 5)
    into(connection, waiting, "openai")
    assert len(take(worker(), 5)) == 5
