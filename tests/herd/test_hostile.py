"""The first fence alone: every hostile statement is sent to real servers as the reader, with the parser's fence off.

Two ways in: as the server of the tools does it (read-only transaction, one statement), and harder than that, on a bare
connection as the reader, which first turns off what it can. Neither may leave a trace anywhere in the herd, or show a
row of another region, a password or a file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from hostile import MARKS, Hostile, hostile, make_hospitals
from pgherd import herdfile
from pgherd.errors import HerdError, QueryRefused, ServerRefused
from pgherd.llm.fence import Checked, check
from pgherd.llm.memory import limit_memory
from pgherd.llm.query import Answer, Limits, reading, run, streamed, wrapped
from pgherd.llm.reader import read_login

pytestmark = pytest.mark.timeout(600)
TARGET = Path("/tmp/pgherd_hostile")
COSTS = "what only costs"
OWN = "its own role"
LIMITS = Limits(seconds=1.5, rows=50, bytes=20_000, row_bytes=5_000)
CATALOG = {
    "pg_class": "relnamespace <> 'pg_toast'::regnamespace",
    "pg_attribute": "attrelid > 0",
    "pg_proc": "true",
    "pg_namespace": "nspname !~ '^pg_t'",
    "pg_authid": "rolname <> ALL (%(ignored)s)",
    "pg_db_role_setting": "setrole <> ALL (SELECT oid FROM pg_roles WHERE rolname = ANY (%(ignored)s))",
    **dict.fromkeys(
        [
            "pg_type",
            "pg_operator",
            "pg_cast",
            "pg_auth_members",
            "pg_parameter_acl",
            "pg_default_acl",
            "pg_database",
            "pg_tablespace",
            "pg_largeobject_metadata",
            "pg_foreign_server",
            "pg_user_mapping",
            "pg_foreign_table",
            "pg_publication",
            "pg_subscription",
            "pg_prepared_xacts",
            "pg_replication_origin",
            "pg_trigger",
            "pg_event_trigger",
            "pg_policy",
            "pg_rewrite",
            "pg_extension",
            "pg_language",
            "pg_description",
            "pg_seclabel",
            "pg_collation",
            "pg_ts_dict",
            "pg_am",
            "pg_constraint",
            "pg_file_settings",
        ],
        "true",
    ),
    "(SELECT slot_name FROM pg_replication_slots)": "true",
    "pg_ls_dir('.')": "true",
}
"""All that a statement could change, and which of its rows count; other databases of these servers are left out."""
BY_ITSELF = {  # what VACUUM and ANALYZE keep up to date
    "pg_class": "relpages, reltuples, relallvisible, relallfrozen, relfrozenxid, relminmxid",
    "pg_database": "datfrozenxid, datminmxid",
}
TABLES = """
    SELECT quote_ident(nspname) || '.' || quote_ident(relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind = 'r' AND nspname IN ('public', 'pgherd') ORDER BY 1
"""


def _digest(name: str, where: str) -> str:
    row = f"(to_jsonb(t) - '{{{BY_ITSELF[name]}}}'::text[])::text" if name in BY_ITSELF else "t::text"
    label = name.replace("'", "")
    return f"SELECT '{label}', count(*), sum(hashtextextended({row}, 0)::numeric) FROM {name} t WHERE {where}"


class World(NamedTuple):
    """A herd with three hospitals, and the reader of us-east."""

    state: Callable[[], list[Any]]
    conninfo: dict[str, Any]
    statements: list[Hostile]
    secrets: list[str]
    restore: Callable[[], object]
    shards: dict[str, Any]


@pytest.fixture
def world(fleet_db: Path) -> Iterator[World]:
    """A world that can be compared with how it was before."""
    file = herdfile.read(fleet_db)
    reader, topology = asyncio.run(make_hospitals(fleet_db, "us-east"))
    group = topology.groups_of("us-east")[0]
    login = read_login(fleet_db, "us-east", file.dbname)
    conninfo = {"host": group.primary.host, "port": group.primary.port, "dbname": file.dbname, "user": reader.role}
    names = {"reader": reader.role, "scribe": reader.scribe, "db": file.dbname, "link": f"pgherd_link_{file.dbname}"}
    admins = [psycopg.connect(file.dsn(fleet_db, n.group), autocommit=True) for n in file.nodes]
    home = next(a for a in admins if a.info.port == group.primary.port)

    def state() -> list[Any]:
        return [_state(a, [] if a is not home else [reader.role]) for a in admins]

    link = home.execute("SELECT pgherd.link_secret('pgherd_us-west')").fetchone()
    assert link is not None
    secrets = [login.reader, login.scribe, link[0], "SCRAM-SHA-256$4096", "root:x:0:0"]
    made = (reader.role, reader.scribe, "us-east", login.reader, login.scribe)
    tables = {"hospital": topology.table("hospital"), "treatment": topology.table("treatment")}
    shards = {"hospital": (tables["hospital"], [tables["hospital"].name])}
    mine = [s.relation for s in topology.shards(tables["treatment"]) if s.home == group.name]
    yield World(
        state,
        {**conninfo, "password": login.reader},
        hostile(**names),
        secrets,
        lambda: restore(home, made),
        shards | {"treatment": (tables["treatment"], mine)},
    )
    for admin in admins:
        admin.close()


def restore(home: psycopg.Connection[Any], made: tuple[str, ...]) -> None:
    """Make the reader anew, as a plan of pgherd does."""
    with home.transaction():
        home.execute("SET LOCAL pgherd.plan = 'on'")
        home.execute("SELECT pgherd.make_reader(%s, %s, %s, %s, %s)", made)


def _state(admin: psycopg.Connection[Any], ignored: list[str]) -> dict[str, Any]:
    relations = {name: "true" for (name,) in admin.execute(TABLES).fetchall()}
    query = " UNION ALL ".join(_digest(*of) for of in (CATALOG | relations).items())
    return {name: rest for name, *rest in admin.execute(query.encode(), {"ignored": ignored}).fetchall()}


def _shown(world: World, text: str) -> list[str]:
    """What must not be shown of this."""
    others = [m for place, m in MARKS.items() if place != "New York"]
    return [s for s in (*others, *world.secrets) if s in text]


def test_a_bare_connection_of_the_reader_can_do_no_harm(world: World) -> None:
    before, harm = world.state(), []
    for section, group in groupby(world.statements, key=attrgetter("section")):
        if section == COSTS:
            continue
        for one in group:
            if shown := _shown(world, _bare(world, one.text)):
                harm.append((one.text, "shows", shown))
            if section == OWN:  # a role may change its own password and settings; read-only transactions refuse that
                harm += [(one.text, "changes", c) for c in [_differences(before, world.state())] if c]
                world.restore()
                before = world.state()
        now = world.state()
        if changed := _differences(before, now):
            harm.append((section, "changes", changed))
            before = now
    assert harm == []
    assert not TARGET.exists()


def _bare(world: World, statement: str) -> str:
    """Everything a statement gives back, errors too; several statements in one string are all run."""
    told = []
    with closing(psycopg.connect(**world.conninfo, autocommit=True)) as connection:
        connection.add_notice_handler(lambda d: told.append(str(d.message_primary)))
        for setting in ("default_transaction_read_only = off", "statement_timeout = '3s'", "lock_timeout = '300ms'"):
            connection.execute(f"SET {setting}".encode())
        try:
            cursor = connection.execute(statement.encode())
            while True:
                if cursor.description:
                    told += [str(r) for r in cursor.fetchmany(5000)]
                if not cursor.nextset():
                    break
        except psycopg.Error as error:
            told.append(str(error))
    return "\n".join(told)


def _differences(before: list[Any], now: list[Any]) -> list[str]:
    pairs = zip(before, now, strict=True)
    return [name for old, new in pairs for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]


def test_the_read_only_transaction_refuses_what_the_fence_would(world: World) -> None:
    before, harm = world.state(), []

    async def all_of_them() -> None:
        for one in world.statements:
            if one.section == COSTS:
                continue
            told = []
            with suppress(HerdError, psycopg.Error):
                async with reading(world.conninfo, "us-east", LIMITS) as connection:
                    async for row in streamed(connection, one.text):
                        told.append(str(row))
                        if len(told) > 5000:
                            break
            if shown := _shown(world, "\n".join(told)):
                harm.append((one.text, "shows", shown))

    asyncio.run(all_of_them())
    assert harm == []
    assert _differences(before, world.state()) == []
    with psycopg.connect(**world.conninfo) as connection:  # its password and its settings are what they were
        assert connection.execute("SHOW default_transaction_read_only").fetchone() == ("on",)
    assert not TARGET.exists()


FINE_BUT_COSTLY = [
    "SELECT count(*) FROM generate_series(1, 1000000000000)",
    "SELECT g FROM generate_series(1, 1000000000) g",
    "SELECT a.id FROM treatment a, treatment b, treatment c, treatment d, treatment e, treatment f",
    "SELECT count(*) FROM treatment a, treatment b, treatment c, treatment d, treatment e, treatment f, treatment g",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT n FROM r",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
    "SELECT string_agg(md5(g::text), '') FROM generate_series(1, 100000) g",
    "SELECT string_agg(md5(g::text), '') FROM generate_series(1, 1000) g, generate_series(1, 3)",
    "SELECT regexp_replace(string_agg('a', ''), '(a*)*(a*)*(a*)*b', 'x') FROM generate_series(1, 100000)",
    "SELECT count(*) FROM regexp_split_to_table((SELECT string_agg('ab', '') FROM generate_series(1, 1000)), 'a*?')"
    " r, generate_series(1, 1000000000)",
    "SELECT array_agg(g) FROM generate_series(1, 100000) g",
    "SELECT g, md5(g::text) FROM generate_series(1, 1000000) g ORDER BY 2",
    "SELECT factorial(100000)",
    "SELECT 9.9::numeric ^ 99999",
    "SELECT jsonb_path_query('[1,2,3]', '$.**.**.**.**') FROM generate_series(1, 1000000)",
]


MANY_LONG = (
    "SELECT greatest(" + ", ".join(f"length(x || '{i}')" for i in range(40)) + ") FROM"
    " (SELECT string_agg(md5(g::text), '') AS x FROM generate_series(1, 500000) g) q"
)
"""16 MB, again and again for one row: 640 MB, and no look at the time between."""


def test_the_values_of_one_row_end_at_a_limit(world: World) -> None:
    limits = replace(Limits(), memory_bytes=200 << 20)
    query = wrapped(check(MANY_LONG, {}), {}, limits)

    async def ask(text: str) -> Answer:
        return await run(world.conninfo, "us-east", text, limits)

    async def limited() -> bool:
        async with reading(world.conninfo, "us-east", limits) as connection:
            (limit,) = [r[0] async for r in streamed(connection, "SELECT pg_backend_pid()")]
            return await limit_memory(connection, limit, limits.memory_bytes)

    if not asyncio.run(limited()):
        pytest.skip("this system lets nobody limit a server's memory")
    with pytest.raises(QueryRefused, match="more memory"):
        asyncio.run(ask(query))
    assert len(asyncio.run(ask(wrapped(check("SELECT 1 AS x", {}), {}, limits))).rows) == 1


def test_a_value_that_is_nested_too_deeply_is_refused(world: World) -> None:
    text = f"SELECT '{'[' * 5000}{']' * 5000}'::jsonb AS x"
    with pytest.raises(QueryRefused, match="nested too deeply"):
        asyncio.run(run(world.conninfo, "us-east", wrapped(check(text, {}), {}, Limits()), Limits()))


def test_what_only_costs_ends_at_a_limit(world: World) -> None:
    before = world.state()
    costly = [h.text for h in world.statements if h.section == COSTS]
    columns = {n: [c.name for c in t.columns] for n, (t, _) in world.shards.items()}

    async def outcome(checked: Checked) -> Answer | HerdError:
        try:
            return await run(world.conninfo, "us-east", wrapped(checked, world.shards, LIMITS), LIMITS)
        except (QueryRefused, ServerRefused) as error:
            return error

    async def all_of_them() -> list[Answer | HerdError]:
        with_fence = [check(text, columns) for text in FINE_BUT_COSTLY]
        return [await outcome(c) for c in (*with_fence, *(Checked(t, ()) for t in costly))]

    for text, ended in zip((*FINE_BUT_COSTLY, *costly), asyncio.run(all_of_them()), strict=True):
        if isinstance(ended, Answer):
            assert ended.truncated, text
            assert len(ended.rows) <= LIMITS.rows
    assert _differences(before, world.state()) == []
