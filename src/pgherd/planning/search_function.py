"""``pgherd.search_<table>``: the scatter-gather search for people who speak SQL only.

One text for all nodes, and one that a move leaves as it is: where shards are at home it asks ``pgherd.home``. It runs
its own group's part itself, sends the others' over dblink before it waits for any, and merges. Runs with its owner's
rights because the links need them, so it checks the caller's rights on the table first.
"""

from __future__ import annotations

from ..model.names import derived_name, quote_ident, quote_literal
from ..model.schema import Column, Table, VectorType
from ..model.topology import Topology
from ..model.vectors import Metric, default_metric, quantized_sql, served_by

RANKED = {VectorType.HALFVEC: "%2$s + 10", VectorType.BIT: "greatest(400, %2$s * 20)"}
"""How many rows an index of smaller values gives, to be ranked by the column itself: as many as the client takes."""


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
    left_out = [s for s in topology.shards(table) if s.tablespace in closed]
    shards = tuple(s for s in topology.shards(table) if s.tablespace not in closed)
    warning = ""
    if left_out:
        named = quote_literal(", ".join(s.name for s in left_out))
        message = f"MESSAGE = 'not searched: ' || {named} || ' (strict: read in their own regions only)'"
        warning = f"\n    RAISE {'WARNING' if shards else 'insufficient_privilege'} USING {message};"
    fixed = next((s.home for s in shards if s.relation.sql not in topology.homes), None)
    home_always = "NULL" if fixed is None else quote_literal(fixed)
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
    shards_ text[] := ARRAY[{", ".join(quote_literal(s.relation.sql) for s in shards)}]::text[];
    columns_ text[] := ARRAY[{", ".join(quote_literal(c.name) for c in table.columns)}]::text[];
    statement_ text;
    groups_ text[];
BEGIN
    IF $1 IS NULL OR $2 IS NULL THEN
        RAISE null_value_not_allowed USING MESSAGE = 'the question and the number of rows must not be NULL';
    END IF;
    PERFORM pgherd.check_reader({quote_literal(table.name.sql)});{warning}
    IF cardinality(shards_) = 0 THEN
        RETURN;
    END IF;
    SELECT * INTO statement_, groups_ FROM pgherd.scatter(
        shards_, {home_always}, {quote_literal(_template(topology, table, column))}, {quote_literal(returns)},
        quote_literal($1::text) || {quote_literal("::" + column.type)}, $2, pgherd.filter_sql($3, columns_));
    RETURN QUERY EXECUTE statement_;
    PERFORM pgherd.gathered(groups_);
END
$pgherd$"""


def _shown(table: Table) -> tuple[Column, ...]:
    """The columns returned: all but vectors, as in the client: links speak text, which is slow for vectors."""
    return tuple(c for c in table.columns if not c.vector)


def _template(topology: Topology, table: Table, column: Column) -> str:
    """The statement for one shard: %1$s is the query, %2$s the limit, %3$s the filter; the rest is the shard's."""
    metric = default_metric(column, topology.indexes(table))
    columns = _escaped("".join(", " + quote_ident(c.name) for c in _shown(table)))
    order = f"{_escaped(quote_ident(column.name))} {_escaped(metric.operator)} %1$s"
    shown = f"SELECT ({order})::float8, %4$s::text, %5$s::text{columns} FROM"
    small = _smaller(topology, table, column, metric)
    if small is None:
        return f"({shown} %6$s WHERE %3$s ORDER BY {order} LIMIT %2$s)"
    assert column.vector is not None
    dim = column.vector[1] or 0
    operator = Metric.HAMMING.operator if small is VectorType.BIT else metric.operator
    found = f"{_escaped(quantized_sql(quote_ident(column.name), small, dim))} {_escaped(operator)}"
    found += f" {quantized_sql('(%1$s)', small, dim)}"
    near = f"(SELECT * FROM %6$s WHERE %3$s ORDER BY {found} LIMIT {RANKED[small]}) AS near_"
    return f"({shown} {near} ORDER BY ({order}) + 0 LIMIT %2$s)"


def _smaller(topology: Topology, table: Table, column: Column, metric: Metric) -> VectorType | None:
    """What an index holds in the place of the column's values, where the column has no index of its own."""
    served = (served_by(index, column) for index in topology.indexes(table) if index.where is None)
    stored = [s.stored for s in served if s is not None and s.metric is metric]
    return None if not stored or (column.vector and column.vector[0] in stored) else stored[0]


def _escaped(text: str) -> str:
    """Text that format() leaves as it is."""
    return text.replace("%", "%%")
