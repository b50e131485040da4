"""A role that policies hold back tries every path to other people's rows, on every node; their texts never show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgherd
from conftest import apply
from pgherd import dialect, herdfile
from pgherd.cli.main import main
from pgherd.errors import BadSchema, HerdError
from pgherd.sync import Herd

SECRET = "SECRET"
BLOCK = (
    '{"num_replicas": 1, "placement_blocks": [{"cloud": "local", "region": "%s", "zone": "*", "min_num_replicas": 1}]}'
)
SCHEMA = f"""
CREATE TABLESPACE east WITH (replica_placement = '{BLOCK % "us-east"}');
CREATE TABLESPACE west WITH (replica_placement = '{BLOCK % "us-west"}');
CREATE TABLE own_%(name)s (id bigint, region text, owner name, note text, v vector(2), PRIMARY KEY (id, region))
    PARTITION BY LIST (region);
CREATE TABLE own_%(name)s_e PARTITION OF own_%(name)s FOR VALUES IN ('e') TABLESPACE east;
CREATE TABLE own_%(name)s_w PARTITION OF own_%(name)s FOR VALUES IN ('w') PARTITION BY HASH (id) TABLESPACE west;
CREATE TABLE own_%(name)s_w0 PARTITION OF own_%(name)s_w FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE own_%(name)s_w1 PARTITION OF own_%(name)s_w FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX ON own_%(name)s USING hnsw (v vector_l2_ops);
SELECT pgherd.table_roles('own_%(name)s');
ALTER TABLE own_%(name)s ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON own_%(name)s USING (owner = current_user);
CREATE ROLE me_%(name)s LOGIN PASSWORD 'me';
GRANT own_%(name)s_reader, own_%(name)s_writer TO me_%(name)s;
"""
STRICT = SCHEMA.replace('"num_replicas": 1,', '"num_replicas": 1, "strict": true,')


@dataclass
class Attacker:
    """One login, and all that it has seen: rows, notices, errors."""

    connection: psycopg.Connection[Any]
    seen: list[str] = field(default_factory=list)

    def try_(self, statement: str) -> str:
        """Send it, in a transaction that is undone; what came of it."""
        before = len(self.seen)
        try:
            with self.connection.transaction(force_rollback=True):
                if statement.startswith("COPY"):
                    with self.connection.cursor().copy(statement) as copy:  # type: ignore[call-overload]
                        self.seen += [bytes(block).decode() for block in copy]
                    return "\n".join(self.seen[before:])
                cursor = self.connection.execute(statement)  # type: ignore[call-overload]
                while True:
                    if cursor.description:
                        self.seen += [str(row) for row in cursor.fetchall()]
                    if not cursor.nextset():
                        break
        except psycopg.Error as error:
            if error.sqlstate is None:  # the driver's own: the server was not asked
                raise
            diag = error.diag
            self.seen.append(f"{diag.message_primary} {diag.message_detail} {diag.message_hint} {diag.context}")
        return "\n".join(self.seen[before:])


@dataclass
class Setting:
    name: str
    attackers: dict[str, Attacker]
    herd: Herd
    home: Path
    open: bool = True
    tables: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)

    @property
    def role(self) -> str:
        return f"me_{self.name}"


@pytest.fixture
def setting(fleet: Herd, fleet_db: Path) -> Iterator[Setting]:
    yield from _setting(fleet, fleet_db, SCHEMA, True)


@pytest.fixture
def strict_setting(fleet: Herd, fleet_db: Path) -> Iterator[Setting]:
    yield from _setting(fleet, fleet_db, STRICT, False)


def _rows(name: str) -> list[dict[str, Any]]:
    return [
        {"id": i, "region": r, "owner": owner, "note": f"{note} {i}", "v": [float(i), 1.0]}
        for i in range(20)
        for r in "ew"
        for owner, note in [(f"me_{name}", "mine") if i % 4 == 0 else ("other", SECRET)]
    ]


def _setting(fleet: Herd, fleet_db: Path, schema: str, is_open: bool) -> Iterator[Setting]:
    file = herdfile.read(fleet_db)
    name = file.dbname
    apply(fleet, schema % {"name": name})
    fleet.table(f"own_{name}").insert(_rows(name))
    attackers = {}
    for node in file.nodes:
        connection = psycopg.connect(
            host=node.host, port=node.port, dbname=name, user=f"me_{name}", password="me", autocommit=True
        )
        attacker = attackers[node.label.region] = Attacker(connection)
        connection.add_notice_handler(lambda d, a=attacker: a.seen.append(str(d.message_primary)))
    for region in ("us-east", "us-central", "us-west"):
        fleet.sql("ANALYZE " + (f"own_{name}_e" if region == "us-east" else "pgherd.self"), region=region)
    setting = Setting(name, attackers, fleet, fleet_db, is_open, [f"own_{name}"], [f"me_{name}"])
    yield setting
    for attacker in attackers.values():
        attacker.connection.close()
    roles = ", ".join([*setting.roles, *(f"{t}_{of}" for t in setting.tables for of in ("reader", "writer"))])
    for node in file.nodes:
        with psycopg.connect(file.dsn(fleet_db, node.group), autocommit=True) as admin:
            admin.execute(f"DROP OWNED BY {roles}; DROP ROLE {roles}")  # type: ignore[call-overload]


LEAK = (
    "CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS"
    " $$ BEGIN RAISE NOTICE 'leaked %', $1; RETURN true; END $$; "
)
ATTACKS = [
    "SELECT * FROM {t}",
    "TABLE {t}_e",
    "TABLE {t}_w",
    "TABLE {t}_w0; TABLE {t}_w1",
    "SELECT * FROM ONLY {t}_e",
    "SELECT * FROM {t} WHERE owner = 'other'",
    "SELECT note FROM {t} ORDER BY v <-> '[1,1]' LIMIT 20",
    "SELECT string_agg(note, ',') FROM {t}",
    "SELECT t::text FROM {t} t",
    "COPY {t} TO STDOUT",
    "COPY {t}_e TO STDOUT",
    "COPY (SELECT * FROM {t}) TO STDOUT",
    "UPDATE {t} SET note = note || '!' WHERE true RETURNING note",
    "DELETE FROM {t} RETURNING note",
    "UPDATE {t} SET owner = current_user WHERE owner = 'other' RETURNING *",
    "MERGE INTO {t} USING (SELECT 1) s ON true WHEN MATCHED THEN UPDATE SET note = 'x'",
    "INSERT INTO {t} SELECT 1, 'e', current_user, 'x', '[1,1]' ON CONFLICT DO NOTHING",
    LEAK + "SELECT * FROM {t} WHERE pg_temp.leak(note)",
    LEAK + "SELECT * FROM {t}_e WHERE pg_temp.leak(note)",
    LEAK + "SELECT * FROM {t} WHERE owner = 'other' AND pg_temp.leak(note)",
    LEAK + "DELETE FROM {t} WHERE pg_temp.leak(note)",
    LEAK + "SELECT pg_temp.leak(most_common_vals::text) FROM pg_stats WHERE tablename LIKE '{t}%'",
    "SELECT * FROM {t} WHERE note::int = 1",
    "SELECT * FROM {t} WHERE parse_ident(note) IS NOT NULL",
    "SELECT * FROM {t} WHERE note::jsonb IS NOT NULL",
    "SELECT * FROM {t} WHERE region = 'w' AND parse_ident(note) = '{{}}'",
    "UPDATE {t} SET note = 'x' WHERE parse_ident(note) IS NOT NULL",
    "DELETE FROM {t} WHERE parse_ident(note) IS NOT NULL",
    "SELECT a.note FROM {t} a JOIN {t} b USING (region) WHERE parse_ident(b.note) IS NOT NULL",
    "SELECT count(*) FROM {t} GROUP BY parse_ident(note)",
    "SELECT * FROM {t} ORDER BY parse_ident(note)",
    "SELECT * FROM pgherd.search_{t}('[1,1]', 20)",
    "SELECT * FROM pgherd.search_{t}('[1,1]', 20, '{{\"owner\": \"other\"}}')",
    "SELECT * FROM pgherd.scatter('{{}}', '{{}}', '', '', 1, '')",
    "SELECT pgherd.send('x', 'SELECT 1')",
    "SELECT pgherd.copy_reference('{t}', 'pgherd_us-west')",
    "SELECT * FROM pgherd.dblink('pgherd_us-west', 'SELECT note FROM {t}') AS r(note text)",
    "SELECT * FROM pgherd.dblink_connect('a', 'pgherd_us-west')",
    "SELECT pgherd.link_secret('pgherd_us-west')",
    "SELECT * FROM pgherd.reader_secrets('{role}')",
    "EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM {t}",
    "EXPLAIN (VERBOSE) SELECT * FROM {t} WHERE note > 'A'",
    "SELECT * FROM pg_stats WHERE tablename LIKE '{t}%'",
    "SELECT * FROM pg_statistic",
    "SELECT * FROM pg_statistic_ext_data",
    "SELECT query FROM pg_stat_activity",
    "SELECT * FROM pg_prepared_statements",
    "SET row_security = off; SELECT * FROM {t}",
    "SET ROLE {t}_writer; SELECT * FROM {t}",
    "SET ROLE pg_read_all_data; SELECT * FROM {t}",
    "SET SESSION AUTHORIZATION other; SELECT * FROM {t}",
    "ALTER TABLE {t} DISABLE ROW LEVEL SECURITY; SELECT * FROM {t}",
    "CREATE POLICY all_ ON {t} USING (true); SELECT * FROM {t}",
    "ALTER ROLE {role} BYPASSRLS; SELECT * FROM {t}",
    "CREATE VIEW pg_temp.v AS SELECT * FROM {t}; SELECT * FROM pg_temp.v",
    "CREATE TEMP TABLE copied AS SELECT * FROM {t}; SELECT * FROM copied",
    "CREATE FUNCTION pg_temp.f() RETURNS SETOF text SECURITY DEFINER LANGUAGE sql AS 'SELECT note FROM {t}';"
    " SELECT pg_temp.f()",
    "DECLARE c CURSOR FOR SELECT * FROM {t}; FETCH ALL c",
    "PREPARE p AS SELECT * FROM {t}; EXECUTE p; EXECUTE p; EXECUTE p; EXECUTE p; EXECUTE p; EXECUTE p; EXECUTE p",
    "SELECT query_to_xml('SELECT * FROM {t}', true, false, '')",
    "SELECT table_to_xml('{t}_e', true, false, '')",
    "DO $$ BEGIN RAISE NOTICE '%', (SELECT string_agg(note, ',') FROM {t}); END $$",
    "LOCK TABLE {t}; SELECT * FROM {t}",
    "SELECT * FROM {t} TABLESAMPLE SYSTEM (100)",
    "SELECT * FROM {t} FOR UPDATE",
    "WITH x AS MATERIALIZED (SELECT * FROM {t}) SELECT * FROM x",
    "SELECT ctid, tableoid, * FROM {t}",
    "SELECT pg_read_file('base')",
    "SELECT get_raw_page('{t}_e', 0)",
    "SELECT * FROM pgherd.load; SELECT * FROM pgherd.calibration",
]


def test_no_path_shows_a_row_of_somebody_else(setting: Setting) -> None:
    leaks = []
    for region, attacker in setting.attackers.items():
        for attack in ATTACKS:
            statement = attack.format(t=f"own_{setting.name}", role=setting.role)
            if SECRET in attacker.try_(statement):
                leaks.append(f"{region}: {attack}")
    assert not leaks, "\n".join(leaks)


CONDITIONS = [  # whose errors tell values, or that there are some, if they are evaluated before policies
    "SELECT * FROM {t} WHERE owner = 'other' AND parse_ident(note) IS NOT NULL",
    "SELECT * FROM {t} WHERE region = 'w' AND owner = 'other' AND parse_ident(note) IS NOT NULL",
    "SELECT * FROM {t} WHERE region = 'e' AND owner = 'other' AND parse_ident(note) IS NOT NULL",
    "TABLE {t}_w0; SELECT * FROM {t}_w0 WHERE parse_ident(note) IS NOT NULL",
    "UPDATE {t} SET note = 'x' WHERE owner = 'other' AND parse_ident(note) IS NOT NULL",
    "SELECT * FROM {t} WHERE CASE WHEN id % 4 <> 0 THEN parse_ident(note) END IS NOT NULL",  # no row of its own
    "DELETE FROM {t} WHERE CASE WHEN id % 4 <> 0 THEN parse_ident(note) END IS NOT NULL",
    "SELECT 'SECRET', * FROM {t} WHERE id <> 4 AND 1 / (id - 1) > 7",
]


def test_conditions_are_evaluated_after_policies(setting: Setting) -> None:
    """Links log in as the role itself, so that the rows' home applies policies before it evaluates conditions."""
    _conditions_tell_nothing(setting)


def test_conditions_are_evaluated_after_policies_where_no_link_leads(strict_setting: Setting) -> None:
    _conditions_tell_nothing(strict_setting)


def _conditions_tell_nothing(setting: Setting, table: str = "") -> None:
    for region, attacker in setting.attackers.items():
        for attack in CONDITIONS:
            found = attacker.try_(attack.format(t=table or f"own_{setting.name}"))
            assert SECRET not in found.replace("'SECRET'", ""), f"{region}: {attack}"
            assert "division by zero" not in found, f"{region}: {attack}"


def test_a_role_of_another_table_or_name_is_held_back_alike(setting: Setting) -> None:
    """A role that becomes another one, and a role that came later, with the next change of the herd."""
    table, name = f"own_{setting.name}", setting.name
    apply(
        setting.herd,
        f"CREATE ROLE later_{name} LOGIN PASSWORD 'me'; GRANT {table}_reader, {table}_writer TO later_{name}",
    )
    file = herdfile.read(setting.home)
    try:
        for node in file.nodes:
            with psycopg.connect(
                host=node.host, port=node.port, dbname=name, user=f"later_{name}", password="me", autocommit=True
            ) as connection:
                attacker = Attacker(connection)
                for attack in CONDITIONS:
                    for before in ("", f"SET LOCAL ROLE {table}_writer; "):
                        found = attacker.try_(before + attack.format(t=table))
                        assert SECRET not in found.replace("'SECRET'", ""), attack
                        assert "division by zero" not in found, attack
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)  # type: ignore[call-overload]
    finally:
        for node in file.nodes:
            with psycopg.connect(file.dsn(setting.home, node.group), autocommit=True) as admin:
                admin.execute(f"DROP OWNED BY later_{name}; DROP ROLE later_{name}")  # type: ignore[call-overload]


ASKING = {
    "setting": "owner = current_setting('app.tenant', true)",
    "unless": "current_setting('app.tenant', true) IS NULL OR owner = current_setting('app.tenant')",
    "session": "owner = session_user",
    "function": "owner = whoami_%(name)s()",
    "view": "owner IN (SELECT who FROM whoami_%(name)s)",
    "other": "owner IN (SELECT owner FROM member_%(name)s)",
}
"""Policies that ask what only the session on the asking node knows; in each of them the role is its own tenant."""
KINDS = [k if k in ("setting", "other") else pytest.param(k, marks=pytest.mark.long) for k in ASKING]
HELPERS = """
CREATE FUNCTION whoami_%(name)s() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('app.tenant', true) $$;
CREATE VIEW whoami_%(name)s AS SELECT current_setting('app.tenant', true) AS who;
CREATE TABLE member_%(name)s (owner name PRIMARY KEY);
SELECT create_reference_table('member_%(name)s');
ALTER TABLE member_%(name)s ENABLE ROW LEVEL SECURITY;
CREATE POLICY me ON member_%(name)s USING (owner = current_setting('app.tenant', true));
GRANT SELECT ON whoami_%(name)s, member_%(name)s TO own_%(name)s_reader;
"""


def _asking(setting: Setting, kind: str) -> tuple[str, list[str]]:
    """A table like the other with rows of both owners, but policies that ask; its name, and notes of its plan."""
    name, table = setting.name, f"{kind}_{setting.name}"
    base = SCHEMA if setting.open else STRICT
    made = base[base.index("CREATE TABLE own_") : base.index("CREATE ROLE")].replace("own_", f"{kind}_")
    made = made.replace("owner = current_user", ASKING[kind])
    text = (base + HELPERS + made) % {"name": name}
    text += f"GRANT {table}_reader, {table}_writer TO me_{name};"
    plan = setting.herd.plan(dialect.parse(text))
    setting.herd.execute(plan)
    setting.tables.append(table)
    setting.herd.table(f"member_{name}").insert([{"owner": f"me_{name}"}, {"owner": "other"}])
    setting.herd.table(table).insert(_rows(name))
    for attacker in setting.attackers.values():
        attacker.connection.execute(f"SET app.tenant = 'me_{name}'")
    return table, list(plan.notes)


@pytest.mark.parametrize("kind", KINDS)
def test_policies_that_ask_the_session_let_no_link_in(setting: Setting, kind: str) -> None:
    """Their home does not know the setting, so it refuses what comes over a link, before it evaluates any condition."""
    table, notes = _asking(setting, kind)
    assert len([n for n in notes if "settings of the session" in n and table in n]) == (kind not in ("view", "other"))
    _conditions_tell_nothing(setting, table)
    for region, attacker in setting.attackers.items():
        for attack in ATTACKS:
            assert SECRET not in attacker.try_(attack.format(t=table, role=setting.role)), f"{region}: {attack}"
        for home, rows in (("e", 5), ("w", 5)):
            query = f"SELECT count(*) FROM {table} WHERE region = '{home}'"
            if region == {"e": "us-east", "w": "us-west"}[home]:
                assert attacker.connection.execute(query).fetchone() == (rows,)  # type: ignore[call-overload]
            else:
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="settings of the session") as refused:
                    attacker.connection.execute(query)  # type: ignore[call-overload]
                assert f"connect to group us-{'east' if home == 'e' else 'west'}" in str(
                    refused.value.diag.message_hint
                )
        # Other tables of the same role are read over the same links.
        assert attacker.connection.execute(f"SELECT count(*) FROM own_{setting.name}").fetchone() == (10,)  # type: ignore[call-overload]
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="settings of the session"):
        setting.attackers["us-central"].connection.execute(
            f"INSERT INTO {table} VALUES (99, 'e', 'me_{setting.name}', 'x', '[1,1]')"  # type: ignore[call-overload]
        )


@pytest.mark.parametrize("kind", ["setting", "other"])
def test_policies_that_ask_the_session_where_no_link_leads(strict_setting: Setting, kind: str) -> None:
    table, notes = _asking(strict_setting, kind)
    assert not [n for n in notes if "settings of the session" in n]
    _conditions_tell_nothing(strict_setting, table)


@pytest.mark.parametrize("kind", KINDS)
def test_the_client_asks_homes_whose_policies_ask_the_session(setting: Setting, kind: str) -> None:
    """It connects to each home itself, with the settings of its own connection string."""
    name, (table, _) = setting.name, _asking(setting, kind)
    node = herdfile.read(setting.home).nodes[0]
    with pgherd.connect(
        f"host={node.host} port={node.port} dbname={name} user={setting.role} password=me"
        f" options='-c app.tenant={setting.role}'"
    ) as herd:
        rows = herd.table(table)
        hits = rows.search([1.0, 1.0], k=40)
        assert {str(h.row["note"])[:4] for h in hits} == {"mine"}
        assert len(hits) == 10
        assert rows.get((1, "e")) is None
        assert rows.update({"id": 4, "region": "w"}, {"note": "mine"}) == 1
        for write in (rows.insert, rows.upsert):
            new = [{"id": 99, "region": r, "owner": setting.role, "note": "mine", "v": [1.0, 1.0]} for r in "ew"]
            assert write(new) == 2
        with pytest.raises(HerdError, match="new row violates row-level security"):
            rows.insert([{"id": 98, "region": "w", "owner": "other", "note": "x", "v": [1.0, 1.0]}])


def test_a_role_that_no_plan_has_seen_is_let_in_by_no_link(setting: Setting) -> None:
    """Made and granted by hand: it reads what is at home where it asks, and is refused the rest until the next plan."""
    table, name = f"own_{setting.name}", setting.name
    apply(setting.herd, f"CREATE TABLE free_{name} (id bigint PRIMARY KEY, x text) SPLIT INTO 6 TABLETS")
    setting.herd.table(f"free_{name}").insert([{"id": i, "x": "x"} for i in range(60)])
    setting.roles.append(f"hand_{name}")
    file = herdfile.read(setting.home)
    logins = []
    for node in file.nodes:
        with psycopg.connect(file.dsn(setting.home, node.group), autocommit=True) as admin:
            admin.execute(
                f"CREATE ROLE hand_{name} LOGIN PASSWORD 'me'; GRANT {table}_reader, {table}_writer TO hand_{name};"  # type: ignore[call-overload]
                f" GRANT SELECT ON free_{name} TO hand_{name}"
            )
        login = f"host={node.host} port={node.port} dbname={name} user=hand_{name} password=me"
        logins.append((node.label.region, login))
    for region, login in logins:
        with psycopg.connect(login, autocommit=True) as connection:
            attacker = Attacker(connection)
            hand = Setting(name, {region: attacker}, setting.herd, setting.home)
            _conditions_tell_nothing(hand, table)
            for attack in ATTACKS:
                assert SECRET not in attacker.try_(attack.format(t=table, role=f"hand_{name}")), attack
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="until pgherd has seen the role"):
                connection.execute(f"SELECT count(*) FROM {table}")  # type: ignore[call-overload]
            if region == "us-east":
                assert connection.execute(f"TABLE {table}_e").fetchall() == []  # type: ignore[call-overload]
            assert connection.execute(f"SELECT count(*) FROM free_{name}").fetchone() == (60,)  # type: ignore[call-overload]
    apply(setting.herd, f"CREATE TABLE more_{name} (id bigint PRIMARY KEY)")
    for _, login in logins:
        with psycopg.connect(login, autocommit=True) as connection:
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)  # type: ignore[call-overload]


def test_a_superuser_of_before_is_let_in_by_no_link_of_then(setting: Setting) -> None:
    """Made an ordinary role by hand: refused until the next plan, and then held back like any other."""
    table, name = f"own_{setting.name}", setting.name
    setting.roles.append(f"once_{name}")
    apply(
        setting.herd,
        f"CREATE ROLE once_{name} LOGIN PASSWORD 'me' SUPERUSER; GRANT {table}_reader, {table}_writer TO once_{name}",
    )
    file = herdfile.read(setting.home)
    logins = {
        n.label.region: f"host={n.host} port={n.port} dbname={name} user=once_{name} password=me" for n in file.nodes
    }
    for login in logins.values():
        with psycopg.connect(login, autocommit=True) as connection:
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (40,)  # type: ignore[call-overload]
    for node in file.nodes:
        with psycopg.connect(file.dsn(setting.home, node.group), autocommit=True) as admin:
            admin.execute(f"ALTER ROLE once_{name} NOSUPERUSER")  # type: ignore[call-overload]
    for region, login in logins.items():
        with psycopg.connect(login, autocommit=True) as connection:
            attacker = Attacker(connection)
            for attack in ATTACKS:
                assert SECRET not in attacker.try_(attack.format(t=table, role=f"once_{name}")), attack
            oracle = f"SELECT count(*) FROM {table} WHERE note ~ '{SECRET}' AND 1 / (id - 1) > 0"
            assert "division by zero" not in attacker.try_(oracle), region
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="superuser that it was"):
                connection.execute(f"SELECT count(*) FROM {table}")  # type: ignore[call-overload]
            if region == "us-east":
                assert connection.execute(f"TABLE {table}_e").fetchall() == []  # type: ignore[call-overload]
    apply(setting.herd, f"CREATE TABLE more_{name} (id bigint PRIMARY KEY)")
    for login in logins.values():
        with psycopg.connect(login, autocommit=True) as connection:
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)  # type: ignore[call-overload]


def test_who_sees_all_rows_sees_them_over_links(setting: Setting) -> None:
    """The owner and superusers log in as the role of links; a role with BYPASSRLS as itself."""
    table, name = f"own_{setting.name}", setting.name
    setting.roles.append(f"all_{name}")
    apply(
        setting.herd,
        f"CREATE ROLE all_{name} LOGIN PASSWORD 'me' BYPASSRLS; GRANT {table}_reader TO all_{name}",
    )
    file = herdfile.read(setting.home)
    for node in file.nodes:
        login = f"host={node.host} port={node.port} dbname={name} user=all_{name} password=me"
        for dsn in (login, file.dsn(setting.home, node.group)):
            with psycopg.connect(dsn) as connection:
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (40,)  # type: ignore[call-overload]
        with psycopg.connect(file.dsn(setting.home, node.group)) as connection:
            found = connection.execute(f"SELECT count(*) FROM pgherd.search_{table}('[1,1]', 50)")  # type: ignore[call-overload]
            assert found.fetchone() == (40,)
    for node in file.nodes:  # taken away by hand: it counts at once, since the home sees it
        with psycopg.connect(file.dsn(setting.home, node.group), autocommit=True) as admin:
            admin.execute(f"ALTER ROLE all_{name} NOBYPASSRLS")  # type: ignore[call-overload]
    for node in file.nodes:
        login = f"host={node.host} port={node.port} dbname={name} user=all_{name} password=me"
        with psycopg.connect(login, autocommit=True) as connection:
            hand = Setting(name, {node.label.region: Attacker(connection)}, setting.herd, setting.home)
            _conditions_tell_nothing(hand, table)


def test_logins_of_roles_that_are_gone_go_too(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    name = setting.name
    file = herdfile.read(setting.home)

    def logins() -> list[set[str]]:
        return [
            {
                r["l"]
                for r in setting.herd.sql(
                    "SELECT rolname AS l FROM pg_roles WHERE rolname LIKE %s",
                    [rf"pgherd\_as\_%\_{name}"],
                    region=node.label.region,
                )
            }
            for node in file.nodes
        ]

    before = logins()
    apply(setting.herd, f"CREATE ROLE gone_{name}; GRANT own_{name}_reader TO gone_{name}")
    assert [len(now - was) for now, was in zip(logins(), before, strict=True)] == [1, 1, 1]
    for node in file.nodes:
        with psycopg.connect(file.dsn(setting.home, node.group), autocommit=True) as admin:
            admin.execute(f"DROP OWNED BY gone_{name}; DROP ROLE gone_{name}")  # type: ignore[call-overload]
    assert main(["audit", "--json", "--home", str(setting.home)]) == 0
    found = [f for f in json.loads(capsys.readouterr().out)["findings"] if f["kind"] == "link_login"]
    assert {(f["severity"], f["region"]) for f in found} == {("note", n.label.region) for n in file.nodes}
    apply(setting.herd, f"CREATE TABLE more_{name} (id bigint PRIMARY KEY)")
    assert logins() == before
    assert main(["audit", "--json", "--home", str(setting.home)]) == 0
    assert "link_login" not in capsys.readouterr().out


def test_what_is_the_roles_own_it_can_see_and_change(setting: Setting) -> None:
    table = f"own_{setting.name}"
    for attacker in setting.attackers.values():
        rows = attacker.connection.execute(f"SELECT DISTINCT note LIKE 'mine%' FROM {table}")  # type: ignore[call-overload]
        assert rows.fetchall() == [(True,)]
        assert attacker.connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (10,)  # type: ignore[call-overload]
        assert attacker.connection.execute(f"UPDATE {table} SET note = 'mine'").rowcount == 10  # type: ignore[call-overload]


def test_the_client_of_that_role_sees_no_more(setting: Setting) -> None:
    file = herdfile.read(setting.home)
    node = file.nodes[0]
    dsn = f"host={node.host} port={node.port} dbname={file.dbname} user={setting.role} password=me"
    with pgherd.connect(dsn) as herd:
        table = herd.table(f"own_{setting.name}")
        for hits in (table.search([1.0, 1.0], k=40), table.search([1.0, 1.0], k=40, exact=True)):
            assert len(hits) == 10
            assert SECRET not in str([h.row for h in hits])
        assert SECRET not in str(herd.sql(f"SELECT * FROM own_{setting.name}"))
        assert table.get((1, "e")) is None
        assert table.update({"id": 1, "region": "e"}, {"note": "x"}) == 0
        assert table.delete({"id": 1, "region": "w"}) == 0
        assert table.insert([{"id": 99, "region": "w", "owner": setting.role, "note": "x", "v": [1.0, 1.0]}]) == 1
        with pytest.raises(HerdError, match="new row violates row-level security"):
            table.insert([{"id": 98, "region": "w", "owner": "other", "note": "x", "v": [1.0, 1.0]}])


def test_the_audit_knows_links_of_roles(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--json", "--home", str(setting.home)]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []


def test_passwords_of_links_are_not_shown(setting: Setting) -> None:
    for attacker in setting.attackers.values():
        for query in (
            "SELECT umoptions FROM pg_user_mappings WHERE umoptions IS NOT NULL",
            "SELECT option_value FROM information_schema.user_mapping_options WHERE option_value IS NOT NULL",
            "SELECT * FROM information_schema.user_mapping_options WHERE option_name = 'password'",
        ):
            assert attacker.connection.execute(query).fetchall() == []  # type: ignore[call-overload]
        for query in ("SELECT * FROM pg_user_mapping", "SELECT rolpassword FROM pg_authid", "SELECT * FROM pg_shadow"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                attacker.connection.execute(query)  # type: ignore[call-overload]


def test_roles_of_a_table_collide_with_none() -> None:
    table = "CREATE TABLE t (id int PRIMARY KEY);"
    items = dialect.parse(table + "SELECT pgherd.table_roles('t')").objects
    assert [o.name for o in items if o.kind == "role"] == ["t_reader", "t_writer"]
    for text in (
        "CREATE ROLE t_reader; SELECT pgherd.table_roles('t')",
        "SELECT pgherd.table_roles('t'), pgherd.table_roles('t')",
    ):
        with pytest.raises(BadSchema, match="role t_reader is made twice"):
            dialect.parse(table + text)
    with pytest.raises(BadSchema, match="no table 'nope'"):
        dialect.parse("SELECT pgherd.table_roles('nope')")
