"""Groups with standbys: replication, Patroni and failovers with certificates."""

from __future__ import annotations

import psycopg
import pytest

from availability.replicated import Replicated, wait_until
from pgherd.local.certificates import CA_CERT
from pgherd.sync import Herd

PLAIN = """
SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE client_port IS NOT NULL AND NOT ssl
"""


def timeline(replicated: Replicated) -> object:
    with replicated.connect() as connection:
        return connection.execute("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)").fetchone()


def test_standbys_verify_their_primary_and_nobody_talks_without_tls(replicated: Replicated) -> None:
    primary = replicated.primary()
    for node in replicated.nodes:
        with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects .*no encryption"):
            replicated.connect(node, sslmode="disable")
        with replicated.connect(node) as connection:
            assert connection.execute(PLAIN).fetchone() == (0,)
            (reach,) = connection.execute("SHOW primary_conninfo").fetchone() or ("",)
        if node != primary:
            assert "sslmode=verify-full" in reach
            assert str(replicated.home / "nodes" / node.name / CA_CERT) in reach
    with replicated.connect(primary) as connection:
        query = "SELECT count(*) FILTER (WHERE ssl), count(*) FROM pg_stat_replication JOIN pg_stat_ssl USING (pid)"
        assert connection.execute(query).fetchone() == (2, 2)


def test_a_new_ca_under_a_running_group(replicated: Replicated, client: Herd) -> None:
    client.table("moving").upsert([{"id": 7, "words": "before"}])
    before = timeline(replicated)
    try:
        replicated.local.renew_certificates(ca=True)
        with replicated.connect() as connection:  # standbys must come back with what they trust now
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
        wait_until(replicated.in_step, 180)
    finally:
        replicated.local.renew_certificates()
    assert timeline(replicated) == before, "nobody had to take over, though etcd's members were started anew, twice"
    with replicated.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
    wait_until(replicated.in_step, 180)
    client.table("moving").upsert([{"id": 7, "words": "after"}])
    assert client.sql("SELECT words FROM moving WHERE id = 7") == [{"words": "after"}]
