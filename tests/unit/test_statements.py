import pytest

from pgherd import dialect
from pgherd.model.names import Name
from pgherd.model.placement import Label
from pgherd.model.topology import EngineName, Group, GroupId, Node, NodeId, Topology
from pgherd.rows.statements import modified_reference_tables

SCHEMA = dialect.parse(
    """
    CREATE SCHEMA app;
    CREATE TABLE country (code text PRIMARY KEY, name text);
    SELECT create_reference_table('country');
    CREATE TABLE app.unit (id int PRIMARY KEY);
    SELECT create_reference_table('app.unit');
    CREATE TABLE doc (id bigint PRIMARY KEY, country text);
    SELECT create_distributed_table('doc', 'id');
    """
)


def topology(groups: int) -> Topology:
    made = tuple(
        Group(GroupId(f"g{i}"), i, (Node(NodeId(f"g{i}"), "127.0.0.1", 5400 + i, Label.parse(f"r{i}")),))
        for i in range(groups)
    )
    return Topology(1, EngineName.FLEET, made, SCHEMA)


@pytest.mark.parametrize(
    ("query", "tables"),
    [
        ("INSERT INTO country VALUES ('fr', 'France')", ["country"]),
        ("insert into public.country values (%s, %s)", ["country"]),
        ("UPDATE country SET name = %(name)s WHERE code LIKE '%%r'", ["country"]),
        ("DELETE FROM app.unit WHERE id = %b", ["app.unit"]),
        ("TRUNCATE doc, country", ["country"]),
        ("INSERT INTO country VALUES ('it', ''); DELETE FROM app.unit", ["country", "app.unit"]),
        ("INSERT INTO doc SELECT 1, code FROM country", []),
        ("SELECT * FROM country -- DELETE FROM country", []),
        ("SELECT 'UPDATE country SET name = NULL'", []),
        ("UPDATE unit SET id = 1", []),
        ("not SQL at all", []),
    ],
)
def test_the_reference_tables_that_a_text_changes_are_found(query: str, tables: list[str]) -> None:
    assert modified_reference_tables(query, topology(2)) == [Name.parse(t) for t in tables]


def test_one_group_needs_no_care() -> None:
    assert modified_reference_tables("DELETE FROM country", topology(1)) == []
