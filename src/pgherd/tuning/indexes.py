"""What a server says of the vector indexes of a shard."""

from __future__ import annotations

from dataclasses import dataclass

from ..engines.base import Connection
from ..model.schema import VectorType
from ..model.topology import Shard
from ..model.vectors import Metric, metric_of_opclass

DEFAULTS = {"hnsw": {"m": "16", "ef_construction": "64"}, "ivfflat": {"lists": "100"}}
"""pgvector's parameters where the index names none (pgvector 0.8, README, Index Options)."""

_FACTS = r"""
SELECT n.nspname, i.relname, a.attname, format_type(e.atttypid, NULL),
    x.indkey[0] = 0 AND pg_get_indexdef(i.oid, 1, false) ~ '^\(+(public\.)?binary_quantize\(' AS signs,
    o.opcname, am.amname, i.reloptions, pg_relation_size(i.oid),
    x.indisvalid AND x.indisready, pg_get_indexdef(i.oid),
    greatest(t.reltuples, 0)::bigint, s.n_live_tup, s.n_dead_tup, s.n_tup_ins + s.n_tup_upd + s.n_tup_del
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_namespace n ON n.oid = i.relnamespace
JOIN pg_am am ON am.oid = i.relam
JOIN pg_opclass o ON o.oid = x.indclass[0]
JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_attribute e ON e.attrelid = i.oid AND e.attnum = 1
LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND a.attnum = CASE x.indkey[0] WHEN 0 THEN
    (SELECT min(d.refobjsubid) FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.oid
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid AND d.refobjsubid > 0) ELSE x.indkey[0] END
LEFT JOIN pg_stat_all_tables s ON s.relid = t.oid
WHERE x.indrelid = to_regclass(%s) AND am.amname IN ('hnsw', 'ivfflat') AND x.indpred IS NULL
ORDER BY i.relname
"""


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """One index: ``column`` is the one that it is about, and ``stored`` the type that its entries have, if it is one of
    pgvector's; ``relation`` is its name without its schema; ``rows`` and ``dead`` are as PostgreSQL's statistics have
    them.

    ``changes`` counts the rows of the table ever inserted, updated or deleted, since its statistics were last reset.
    """

    name: str
    relation: str
    column: str | None
    stored: VectorType | None
    metric: Metric | None
    method: str
    parameters: dict[str, str]
    size_bytes: int
    valid: bool
    definition: str
    rows: int
    dead: int
    changes: int

    def serves(self, column: str, metric: Metric, stored: VectorType) -> bool:
        """Whether a search of ``column`` by ``metric`` may use it, among the indexes with entries of that type."""
        return (self.column, self.metric, self.stored) == (column, metric, stored)


async def index_facts(connection: Connection, shard: Shard) -> list[IndexFacts]:
    """The hnsw and ivfflat indexes of a shard over all its rows; ``connection`` is to its home."""
    done = await connection.execute(_FACTS, [shard.relation.sql])
    found = []
    for (
        schema,
        name,
        column,
        kind,
        signs,
        opclass,
        method,
        options,
        size,
        valid,
        text,
        estimate,
        live,
        dead,
        changes,
    ) in await done.fetchall():
        given = dict(o.split("=", 1) for o in options or ())
        found.append(
            IndexFacts(
                name if schema == "public" else f"{schema}.{name}",
                name,
                column,
                VectorType(kind) if kind in set(VectorType) else None,
                Metric.COSINE if signs else metric_of_opclass(opclass),
                method,
                {**DEFAULTS[method], **given},
                size,
                valid,
                text,
                live or estimate,
                dead or 0,
                changes or 0,
            )
        )
    return found
