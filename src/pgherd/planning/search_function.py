"""``pgherd.search_<table>``: the scatter-gather search for people who speak SQL only.

One text for all nodes: it runs its own group's part itself, sends the others' over dblink before it waits for any, and
merges. Runs with its owner's rights because the links need them, so it checks the caller's rights on the table first.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..model.names import derived_name, quote_ident, quote_literal
from ..model.schema import Column, Table
from ..model.topology import Topology
from ..model.vectors import default_metric


def search_functions(topology: Topology, table: Table, closed: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
    """(name, CREATE OR REPLACE text) of the search function of every vector column of the table.

    Shards in the tablespaces ``closed``, which are strict and elsewhere, are left out; a warning says so.
    """
    made = []
    for i, column in enumerate(table.vector_columns):
        base = table.name.name if table.name.schema == "public" else f"{table.name.schema}_{table.name.name}"
        name = derived_name("search_" + base, "" if i == 0 else f"_{column.name}")
        made.append((name, _function(topology, table, column, name, closed)))
    return made


def _unused(wanted: str, taken: set[str]) -> str:
    while wanted in taken:
        wanted = "_" + wanted
    taken.add(wanted)
    return wanted


def _function(topology: Topology, table: Table, column: Column, name: str, closed: frozenset[str]) -> str:
    taken = {c.name for c in table.columns}
    query, k, where = (_unused(w, taken) for w in ("query", "k", "filter"))
    distance, shard, home = (_unused(w, taken) for w in ("distance", "shard", "home"))
    rows = [(distance, "double precision"), (shard, "text"), (home, "text")]
    rows += [(c.name, c.type) for c in _shown(table)]
    returns = ", ".join(f"{quote_ident(n)} {t}" for n, t in rows)
    groups: list[str] = []
    templates: list[str] = []
    left_out = [s for s in topology.shards(table) if s.tablespace in closed]
    warning = ""
    if left_out:
        shards = quote_literal(", ".join(s.name for s in left_out))
        message = f"MESSAGE = 'not searched: ' || {shards} || ' (strict: read in their own regions only)'"
        all_of_it = len(left_out) == len(topology.shards(table))
        warning = f"\n    RAISE {'insufficient_privilege' if all_of_it else 'WARNING'} USING {message};"
    for group, text in _per_group(topology, table, column, closed):
        groups.append(quote_literal(group))
        templates.append(quote_literal(text))
    base_type = column.type.partition("(")[0]
    return f"""\
CREATE OR REPLACE FUNCTION pgherd.{quote_ident(name)}(
    {quote_ident(query)} {base_type}, {quote_ident(k)} integer DEFAULT 10, {quote_ident(where)} jsonb DEFAULT '{{}}')
RETURNS TABLE ({returns})
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET hnsw.iterative_scan = 'strict_order'
SET ivfflat.iterative_scan = 'relaxed_order'
SET constraint_exclusion = 'on'
AS $pgherd$
DECLARE
    groups_ text[] := ARRAY[{", ".join(groups)}]::text[];
    templates_ text[] := ARRAY[{", ".join(templates)}]::text[];
    columns_ text[] := ARRAY[{", ".join(quote_literal(c.name) for c in table.columns)}]::text[];
BEGIN
    IF $1 IS NULL OR $2 IS NULL THEN
        RAISE null_value_not_allowed USING MESSAGE = 'the question and the number of rows must not be NULL';
    END IF;
    PERFORM pgherd.check_reader({quote_literal(table.name.sql)});{warning}
    RETURN QUERY EXECUTE pgherd.scatter(
        groups_, templates_, {quote_literal(returns)},
        quote_literal($1::text) || {quote_literal("::" + column.type)}, $2, pgherd.filter_sql($3, columns_));
    PERFORM pgherd.gathered(groups_);
END
$pgherd$"""


def _shown(table: Table) -> tuple[Column, ...]:
    """The columns returned: all but vectors, as in the client: links speak text, which is slow for vectors."""
    return tuple(c for c in table.columns if not c.vector)


def _per_group(topology: Topology, table: Table, column: Column, closed: frozenset[str]) -> Iterable[tuple[str, str]]:
    """(group, statement) pairs; in the statement %1$s is the query, %2$s the limit and %3$s the filter."""
    operator = _escaped(default_metric(column, topology.indexes(table)).operator)
    columns = "".join(", " + quote_ident(c.name) for c in _shown(table)).replace("%", "%%")
    by_group: dict[str, list[str]] = {}
    for shard in (s for s in topology.shards(table) if s.tablespace not in closed):
        order = f"{_escaped(quote_ident(column.name))} {operator} %1$s"
        origin = _escaped(f"{quote_literal(shard.name)}::text, {quote_literal(shard.home)}::text")
        text = (
            f"(SELECT ({order})::float8, {origin}{columns}"
            f" FROM {_escaped(shard.relation.sql)} WHERE %3$s ORDER BY {order} LIMIT %2$s)"
        )
        by_group.setdefault(shard.home, []).append(text)
    return ((g, " UNION ALL ".join(parts)) for g, parts in by_group.items())


def _escaped(text: str) -> str:
    """Text that format() leaves as it is."""
    return text.replace("%", "%%")
