"""The token level: what is taken out of a statement, and that every other character keeps its place."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgherd.dialect import parse
from pgherd.dialect.source import Source, Statement
from pgherd.dialect.translate import statements
from pgherd.errors import BadSchema


def one(text: str) -> Statement:
    (found,) = statements(Source("f.sql", text))
    return found


@pytest.mark.parametrize(
    ("text", "sql", "hashed", "tablets"),
    [
        ("CREATE TABLE t (a int PRIMARY KEY HASH)", "CREATE TABLE t (a int PRIMARY KEY     )", (), None),
        ("CREATE TABLE t (a int PRIMARY KEY ASC)", "CREATE TABLE t (a int PRIMARY KEY    )", None, None),
        ("CREATE TABLE t (PRIMARY KEY (a HASH, b DESC))", "CREATE TABLE t (PRIMARY KEY (a , b ))", ("a",), None),
        ('CREATE TABLE t (PRIMARY KEY (("A b", c) HASH))', 'CREATE TABLE t (PRIMARY KEY ( "A b", c ))',
         ("A b", "c"), None),
        ("CREATE TABLE t (PRIMARY KEY (hash, asc_))", "CREATE TABLE t (PRIMARY KEY (hash, asc_))", None, None),
        ("CREATE TABLE t (PRIMARY KEY (hash HASH))", "CREATE TABLE t (PRIMARY KEY (hash     ))", ("hash",), None),
        ("CREATE TABLE t (UNIQUE (a HASH NULLS FIRST))", "CREATE TABLE t (UNIQUE (a                 ))", None, None),
        ("CREATE TABLE t (CHECK ((a, b) = (1, 2)))", "CREATE TABLE t (CHECK ((a, b) = (1, 2)))", None, None),
        ("CREATE TABLE t () SPLIT INTO 12 TABLETS", "CREATE TABLE t ()                       ", None, 12),
        ("CREATE TABLE t () SPLIT /* x */ INTO\n2 TABLETS", "CREATE TABLE t ()                   \n         ", None, 2),
        ("CREATE INDEX ON t ((a, b) HASH, c DESC)", "CREATE INDEX ON t ( a, b      , c DESC)", None, None),
        ("CREATE INDEX ON t ((a || b) HASH)", "CREATE INDEX ON t ((a || b) HASH)", None, None),
        ("CREATE INDEX NONCONCURRENTLY i ON t (a)", "CREATE INDEX                  i ON t (a)", None, None),
        ("ALTER TABLE t ADD PRIMARY KEY (a HASH)", "ALTER TABLE t ADD PRIMARY KEY (a     )", ("a",), None),
        ("CREATE VIEW v AS SELECT a AS split", "CREATE VIEW v AS SELECT a AS split", None, None),
    ],
)  # fmt: skip
def test_clauses_are_blanked(text: str, sql: str, hashed: tuple[str, ...] | None, tablets: int | None) -> None:
    found = one(text)
    assert found.sql.split() == sql.split()
    assert len(found.sql) == len(text)
    assert (found.hashed, found.tablets) == (hashed, tablets)


def test_create_tablespace_reads_as_alter() -> None:
    text = "CREATE TABLESPACE with_ OWNER bob WITH (replica_placement = $$;$$)"
    found = one(text)
    assert found.sql == "ALTER  TABLESPACE with_           SET  (replica_placement = $$;$$)"
    assert found.placement


def test_statements_are_split_at_their_ends_only() -> None:
    text = """a 'x;y' "b;c" $$;$$ $q$ ; $$ $q$ (;) -- ;
        /* ; /* ; */ ; */ ; CREATE OR REPLACE FUNCTION f() BEGIN ATOMIC a; SELECT CASE WHEN b THEN c END; END;
        begin; end"""
    words = [s.sql.split()[0] for s in statements(Source("f", text))]
    assert words == ["a", "CREATE", "begin", "end"]


def test_positions_are_those_of_the_file() -> None:
    found = list(statements(Source("f", '-- é\n  CREATE TABLE t ();\r\n\tCREATE TABLE "é" ();')))
    assert [s.place().where for s in found] == ["f:2:3", "f:3:2"]
    assert found[1].place(13).where == "f:3:15"


WORDS = r"""
CREATE TABLE INDEX t a b ( ) , ; . PRIMARY KEY HASH ASC UNIQUE SPLIT INTO AT 3 TABLETS VALUES ON USING lsm int text
vector(3) PARTITION BY LIST OF FOR IN DEFAULT 'x' "q" $$ $$;$$ -- /* */ ' " \ TABLESPACE WITH LOCATION OWNER SELECT
create_distributed_table create_reference_table => ALTER ADD COLUMN ATTACH BEGIN ATOMIC END FUNCTION COPY stdin
\restrict DROP IF EXISTS CONSTRAINT CHECK REFERENCES NOT NULL SET E'\u' U&'\x' ROLE PASSWORD GRANT
""".split()  # noqa: SIM905 (the words are many)


def read_or_refuse(text: str) -> None:
    """parse ``text``; all it may raise is BadSchema that begins with the place."""
    try:
        parse(text)
    except BadSchema as refused:
        said = refused.message
    else:
        said = "schema.sql:"
    assert said.startswith("schema.sql:")


@given(st.lists(st.sampled_from([*WORDS, "\n"]), max_size=14).map(" ".join))
@example("CREATE TABLE t (a int PRIMARY KEY (")
@example("CREATE TABLESPACE WITH OWNER")
@example("CREATE INDEX ON (")
@example("PRIMARY KEY")
@example("CREATE TABLE PRIMARY")
@example("\\restrict")
@example(") ; (")
def test_whatever_is_in_the_file_is_read_or_refused(text: str) -> None:
    read_or_refuse(text)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    read_or_refuse(text)
