"""Many calls at once: tasks of one event loop, threads of the client without asyncio, and calls that are broken off."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import pgherd
from conftest import apply
from pgherd import dialect
from pgherd.errors import BadInput, DimensionMismatch, ServerRefused, UnknownName
from pgherd.sync import Herd

DOC = "CREATE TABLE doc (id bigint PRIMARY KEY, n int, v vector(2)); SELECT create_distributed_table('doc', 'id')"


def wait_until(predicate: Callable[[], Any], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < deadline, "it did not come to be"
        threading.Event().wait(0.01)


@pytest.fixture(params=["single", "fleet"])
def own_home(request: pytest.FixtureRequest) -> Path:
    home: Path = request.getfixturevalue(f"{request.param}_db")
    return home


def test_many_tasks_search_and_write_in_one_loop(own_home: Path) -> None:
    async def main() -> None:
        async with pgherd.connect_async(home=own_home) as herd:
            await herd.execute(await herd.plan(dialect.parse(DOC)))
            table = herd.table("doc")
            await table.upsert([{"id": i, "n": 0, "v": [i, 1]} for i in range(50)])

            async def work(i: int) -> None:
                if i % 2:
                    assert await table.upsert([{"id": 100 * i + j, "n": i, "v": [j, i]} for j in range(20)]) == 20
                    assert await table.update({"id": i}, {"n": 1}) == 1
                else:
                    hits = await table.search([i, 1], k=1, metric="l2", where="id < 50", exact=True)
                    assert [h.row["id"] for h in hits] == [i]
                    found = await table.get(i)
                    assert found is not None

            await asyncio.gather(*(work(i) for i in range(50)))
            assert await herd.sql("SELECT count(*) AS n, count(*) FILTER (WHERE n = 1) AS ones FROM doc") == [
                {"n": 50 + 25 * 20, "ones": 25 + 20}
            ]

    asyncio.run(main())


def test_a_cancelled_search_gives_its_connection_back(own_home: Path) -> None:
    async def main() -> None:
        async with pgherd.connect_async(home=own_home) as herd:
            await herd.execute(await herd.plan(dialect.parse(DOC)))
            table = herd.table("doc")
            await table.upsert([{"id": i, "v": [i, 1]} for i in range(8)])
            for _ in range(20):  # more than a pool holds
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await table.search([1, 1], where="pg_sleep(60) IS NULL")
            assert len(await table.search([1, 1])) == 8
            still = (
                "SELECT count(*) AS n FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(60) IS%'"
            )
            for group in herd.topology.groups:
                rows = await herd.sql(still + " AND pid <> pg_backend_pid()", region=group.name)
                assert rows == [{"n": 0}]

    asyncio.run(main())


def test_more_calls_than_connections_wait_for_their_turn(own_home: Path) -> None:
    async def main() -> None:
        async with pgherd.connect_async(home=own_home) as herd:
            rows = await asyncio.gather(*(herd.sql(f"SELECT {i} AS i, pg_sleep(0.01)::text") for i in range(60)))
            assert [r[0]["i"] for r in rows] == list(range(60))

    asyncio.run(main())


def test_threads_share_a_client(herd: Herd) -> None:
    apply(herd, DOC)
    table = herd.table("doc")

    def work(i: int) -> list[int]:
        table.upsert([{"id": i * 10 + j, "v": [i, j]} for j in range(5)])
        return [
            h.row["id"] for h in table.search([i, 3], k=1, metric="l2", where={"id": [i * 10 + j for j in range(5)]})
        ]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(40))) == [[i * 10 + 3] for i in range(40)]
    assert herd.sql("SELECT count(*) AS n FROM doc") == [{"n": 200}]


def test_errors_keep_their_type(herd: Herd) -> None:
    apply(herd, DOC)
    table = herd.table("doc")
    for error, call in (
        (UnknownName, lambda: herd.table("nope")),
        (DimensionMismatch, lambda: table.search([1, 2, 3])),
        (ServerRefused, lambda: herd.sql("SELECT 1 / 0")),
        (BadInput, lambda: table.search([1, 2], where="1 = ")),
    ):
        with pytest.raises(error) as caught:
            call()
        assert caught.type is error
    assert table.search([1, 2]) == []


def test_ctrl_c_ends_a_long_call_and_leaves_the_client_usable(herd: Herd) -> None:
    apply(herd, DOC)
    table = herd.table("doc")
    table.insert([{"id": 1, "v": [1, 1]}])
    main = threading.main_thread().ident
    assert main is not None
    other = "state = 'active' AND query LIKE '%pg_sleep(99)%' AND pid <> pg_backend_pid()"
    running = f"SELECT count(*) AS n FROM pg_stat_activity WHERE {other}"

    def anywhere() -> bool:
        return any(herd.sql(running, region=g.name)[0]["n"] for g in herd.topology.groups)

    for call in (
        lambda: herd.sql("SELECT pg_sleep(99)"),
        lambda: table.search([1, 1], where="pg_sleep(99) IS NULL"),
        lambda: table.update("pg_sleep(99) IS NOT NULL", {"n": 5}),
    ):

        def interrupt() -> None:
            wait_until(anywhere)
            signal.pthread_kill(main, signal.SIGINT)

        helper = threading.Thread(target=interrupt)
        helper.start()
        with pytest.raises(KeyboardInterrupt):
            call()
        helper.join()
        wait_until(lambda: not anywhere())  # the server was told: it would take 99 s
    assert table.get(1) == {"id": 1, "n": None, "v": table.get(1)["v"]}  # type: ignore[index]


def test_clients_can_be_nested_and_close(herd: Herd, request: pytest.FixtureRequest) -> None:
    apply(herd, DOC)
    home = request.getfixturevalue(f"{herd.topology.engine}_db")
    with pgherd.connect(home=home) as inner, pgherd.connect(home=home) as innermost:
        inner.table("doc").insert({"id": 1})
        assert innermost.table("doc").get(1) is not None
        inner.table("doc").upsert({"id": 1, "n": 2})
        assert herd.sql("SELECT n FROM doc") == innermost.sql("SELECT n FROM doc") == [{"n": 2}]
    with pytest.raises(BadInput, match="closed"):
        inner.sql("SELECT 1")
    assert herd.sql("SELECT n FROM doc") == [{"n": 2}]


def test_a_client_does_not_call_itself_from_a_callback(herd: Herd) -> None:
    seen: list[BadInput] = []

    def call_back(*_: Any) -> None:
        with pytest.raises(BadInput, match="callback") as caught:
            herd.sql("SELECT 1")
        seen.append(caught.value)

    herd.execute(herd.plan(dialect.parse(DOC)), call_back)
    assert seen


def test_statements_are_prepared_once_a_shape(herd: Herd) -> None:
    apply(herd, DOC)
    table = herd.table("doc")
    table.upsert([{"id": i, "v": [i, 1]} for i in range(20)])
    for i in range(1, 30):
        assert len(table.search([i, 1], k=3, where={"id": [i % 20, 3]})) in (1, 2)
    count = "SELECT count(*) AS n FROM pg_prepared_statements WHERE statement LIKE '%ANY%'"
    assert max(herd.sql(count, region=g.name)[0]["n"] for g in herd.topology.groups) <= 2
