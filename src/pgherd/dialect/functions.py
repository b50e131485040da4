"""``SELECT create_distributed_table(…)`` and its family: Citus' functions, and pgherd's own.

Reference: Citus' page of utility functions (create_distributed_table, create_reference_table).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pglast import ast

from ..model.names import Name, derived_name, quote_ident
from ..model.schema import (
    CELLS_PER_SHARD,
    Cells,
    Column,
    Embedding,
    Key,
    ListBound,
    ObjectKind,
    PartitionBy,
    SqlObject,
    Strategy,
    TableKind,
    Trail,
    VectorType,
)
from ..model.vectors import Metric
from .drafts import Draft, TableDraft
from .source import Place, Statement
from .text import constant, strings
from .translate import MAX_SHARDS

DEFAULT_MODEL = "wordllama"
NEAREST_METRICS = (Metric.COSINE.value, Metric.L2.value)
DEFAULT_NEAREST_SHARDS, MAX_NEAREST_SHARDS = 8, 128
"""Small shards cost nothing where a search asks only some of them."""
_PARAMETERS = {
    "create_distributed_table": (
        "table_name",
        "distribution_column",
        "distribution_type",
        "colocate_with",
        "shard_count",
    ),
    "create_reference_table": ("table_name",),
    "distribute_by_nearest": ("table_name", "vector_column", "cell_column", "shard_count", "metric"),
    "embed_column": ("table_name", "text_column", "vector_column", "model"),
    "table_roles": ("table_name",),
    "audit_trail": ("keep",),
    "set_config": ("setting_name", "new_value", "is_local"),
}
_TEXT_TYPES = ("text", "character varying", "character", "citext")


class _Call(NamedTuple):
    name: str
    values: dict[str, str | None]
    place: Place

    def text(self, parameter: str) -> str:
        value = self.values.get(parameter)
        if value is None:
            raise self.place.bad(f"{self.name}: {parameter} is missing", hint="see the functions' order of arguments")
        return value


def run_select(draft: Draft, node: Any, statement: Statement) -> None:
    """A SELECT at the top of a schema file: one of the known functions, or BadSchema."""
    place = statement.place()
    plain = node.fromClause is None and node.valuesLists is None and node.intoClause is None and node.targetList
    if not plain or not all(isinstance(t.val, ast.FuncCall) for t in node.targetList):
        raise place.bad("a query in a schema file", hint="run it with pgherd sql")
    for target in node.targetList:
        call = _read(target.val, statement)
        _FUNCTIONS[call.name](draft, call)


def _read(node: Any, statement: Statement) -> _Call:
    *schema, name = strings(node.funcname)
    place = statement.place(node.location)
    if name not in _PARAMETERS:
        raise place.bad(
            f"function {name} in a schema file",
            hint=f"run it with pgherd sql; known here: {', '.join(sorted(_PARAMETERS.keys() - {'set_config'}))}",
        )
    if schema and schema[0] not in ("pg_catalog", "public", "citus", "pgherd"):
        raise place.bad(f"function {schema[0]}.{name}", hint=f"write {name}(…)")
    parameters = _PARAMETERS[name]
    values: dict[str, str | None] = {}
    for n, arg in enumerate(node.args or ()):
        named = isinstance(arg, ast.NamedArgExpr)
        if not named and n >= len(parameters):
            raise place.bad(f"{name}: too many arguments", hint=f"arguments: {', '.join(parameters)}")
        parameter = arg.name if named else parameters[n]
        if parameter not in parameters:
            raise place.bad(f"{name}: no argument {parameter!r}", hint=f"arguments: {', '.join(parameters)}")
        try:
            values[parameter] = constant(arg.arg if named else arg)
        except ValueError as e:
            raise place.bad(f"{name}: {parameter} is not a constant", hint="write the value itself") from e
    return _Call(name, values, place)


def _target(draft: Draft, call: _Call) -> TableDraft:
    table = draft.table(Name.parse(call.text("table_name")), call.place)
    if table.by is not None or table.parent is not None or table.hashed is not None or table.tablets is not None:
        raise call.place.bad(
            f"{call.name}: table {str(table.name)!r} is partitioned by its CREATE TABLE",
            hint=f"leave one of the two out: the partitions, or {call.name}",
        )
    if table.citus is not None:
        raise call.place.bad(f"table {str(table.name)!r} is distributed twice", hint="keep one of the two calls")
    return table


def _distribute(draft: Draft, call: _Call) -> None:
    table = _target(draft, call)
    if "distribution_column" not in call.values:
        raise call.place.bad("distribution_column is missing", hint="name a column, or NULL for a table in one group")
    how = call.values.get("distribution_type")
    if how not in (None, "hash"):
        raise call.place.bad(f"distribution_type {how!r}", hint="write 'hash', or leave it out")
    said, other = call.values.get("shard_count"), call.values.get("colocate_with")
    if said is not None and not (said.isdecimal() and 1 <= int(said) <= MAX_SHARDS):
        raise call.place.bad(f"shard_count is {said}", hint=f"write a number from 1 to {MAX_SHARDS}")
    column = call.values["distribution_column"]
    if other not in (None, "default", "none"):
        table.colocate_with = (Name.parse(str(other)), call.place)
    if column is None:
        if said is not None:
            raise call.place.bad("shard_count for a table in one group", hint="leave shard_count out")
        table.citus = TableKind.LOCAL
        return
    name = Name.parse(column).name
    table.column(name, call.place)
    table.citus, table.hash_column = TableKind.DISTRIBUTED, name
    table.shard_count = int(said) if said else None if table.colocate_with else 0


def _reference(draft: Draft, call: _Call) -> None:
    _target(draft, call).citus = TableKind.REFERENCE


def _nearest(draft: Draft, call: _Call) -> None:
    """A LIST partition of cells for each shard, and the reference table of the cells' centroids."""
    table, place = _target(draft, call), call.place
    vector = table.column(Name.parse(call.text("vector_column")).name, place)
    cell = table.column(Name.parse(call.values.get("cell_column") or "cell").name, place)
    if vector.vector is None or vector.vector[0] not in (VectorType.VECTOR, VectorType.HALFVEC):
        raise place.bad(
            f"column {vector.name!r} is {vector.type}: no centroids", hint="name a vector or halfvec column"
        )
    if vector.vector[1] is None:
        raise place.bad(f"column {vector.name!r} has no fixed dimension", hint=f"make it {vector.vector[0]}(n)")
    if cell.type not in ("smallint", "integer", "bigint"):
        raise place.bad(f"column {cell.name!r} is {cell.type}, not a number of a cell", hint="make it smallint")
    metric = call.values.get("metric") or Metric.COSINE.value
    if metric not in NEAREST_METRICS:
        raise place.bad(f"metric {metric!r}", hint=f"centroids are nearest by one of: {', '.join(NEAREST_METRICS)}")
    said = call.values.get("shard_count") or str(DEFAULT_NEAREST_SHARDS)
    if not (said.isdecimal() and 2 <= int(said) <= MAX_NEAREST_SHARDS):
        raise place.bad(f"shard_count is {said}", hint=f"write a number from 2 to {MAX_NEAREST_SHARDS}")
    centroids = Name(table.name.schema, derived_name(table.name.name, "_cells"))
    table.cells = Cells(cell.name, vector.name, centroids, metric)
    table.by = PartitionBy(Strategy.LIST, (cell.name,))
    for shard in range(int(said)):
        first = shard * CELLS_PER_SHARD
        bound = ListBound(tuple(str(number) for number in range(first, first + CELLS_PER_SHARD)))
        name = Name(table.name.schema, derived_name(table.name.name, f"_{shard:0{len(str(int(said) - 1))}}"))
        draft.make_relation(name, place)
        draft.tables[name] = TableDraft(name, place, parent=table.name, bound=bound)
        draft.items.append(draft.tables[name])
        table.children.append(name)
    draft.make_relation(centroids, place)
    columns = {"cell": Column("cell", "smallint"), "centroid": Column("centroid", f"vector({vector.vector[1]})", True)}
    keys = [Key(("cell",), primary=True)]
    draft.tables[centroids] = TableDraft(centroids, place, columns, keys, citus=TableKind.REFERENCE)
    draft.items.append(draft.tables[centroids])


def _embed(draft: Draft, call: _Call) -> None:
    table = draft.table(Name.parse(call.text("table_name")), call.place)
    text = table.column(Name.parse(call.text("text_column")).name, call.place)
    vector = table.column(Name.parse(call.text("vector_column")).name, call.place)
    if text.type.partition("(")[0] not in _TEXT_TYPES:
        raise call.place.bad(f"column {text.name!r} is {text.type}, not text", hint="name a text column")
    if vector.vector is None:
        raise call.place.bad(f"column {vector.name!r} is {vector.type}, not a vector", hint="make it vector(n)")
    if any(e.vector_column == vector.name for e in table.embeddings):
        raise call.place.bad(f"column {vector.name!r} is embedded twice", hint="keep one of the two calls")
    table.embeddings.append(Embedding(vector.name, text.name, call.values.get("model") or DEFAULT_MODEL))


def _table_roles(draft: Draft, call: _Call) -> None:
    """Two roles that nobody can log in as, for GRANT: ``<table>_reader`` and ``<table>_writer``."""
    table = draft.table(Name.parse(call.text("table_name")), call.place)
    if table.parent is not None:
        raise call.place.bad(f"{table.name} is a partition", hint=f"name its table, {draft.root(table.name).name}")
    name, schema = table.name, quote_ident(table.name.schema)
    base = name.name if name.schema == "public" else f"{name.schema}_{name.name}"
    for suffix, rights in (("_reader", "SELECT"), ("_writer", "SELECT, INSERT, UPDATE, DELETE")):
        role = derived_name(base, suffix)
        quoted = quote_ident(role)
        draft.make("role", quoted, call.place)
        draft.items.append(SqlObject(ObjectKind.ROLE, role, f"CREATE ROLE {quoted} NOLOGIN"))
        grants = [f"GRANT {rights} ON TABLE {name.sql} TO {quoted}"]
        grants += [f"GRANT SELECT ON TABLE {table.cells.table.sql} TO {quoted}"] if table.cells else []
        grants += [f"GRANT USAGE ON SCHEMA {schema} TO {quoted}"] if name.schema != "public" else []
        draft.items += [SqlObject(ObjectKind.GRANT, text, text, replaceable=True) for text in grants]


def _audit_trail(draft: Draft, call: _Call) -> None:
    try:
        wanted = Trail(call.text("keep"))
    except ValueError as error:
        raise call.place.bad(f"audit_trail {call.values['keep']!r}", hint="one of: " + ", ".join(Trail)) from error
    if draft.trail not in (None, wanted):
        raise call.place.bad("the audit trail is set twice", hint="keep one of the two calls")
    draft.trail = wanted


def _set_config(draft: Draft, call: _Call) -> None:
    setting(draft, call.text("setting_name"), [call.values.get("new_value") or ""], call.place)


def setting(draft: Draft, name: str, values: list[str], place: Place) -> None:
    """SET and set_config: pg_dump's settings are left out; those that change what a name means are minded."""
    if name == "search_path":
        path = [p.strip().strip('"') for v in values for p in v.split(",")]
        first = next((p for p in path if p not in ("", "$user", "pg_catalog")), "public")
        if first != "public":
            raise place.bad(f"search_path {first}", hint=f"write names with their schema: {first}.name")
    elif name == "default_tablespace":
        draft.default_tablespace = values[0] if values and values[0] else None
    elif name in ("role", "session_authorization"):
        raise place.bad(f"SET {name}", hint="apply as the role that shall own everything")


_FUNCTIONS = {
    "create_distributed_table": _distribute,
    "create_reference_table": _reference,
    "distribute_by_nearest": _nearest,
    "embed_column": _embed,
    "table_roles": _table_roles,
    "audit_trail": _audit_trail,
    "set_config": _set_config,
}
