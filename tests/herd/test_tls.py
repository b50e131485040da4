"""Connections of a herd are encrypted, and whoever answers in a server's place is found out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

import pgherd
from conftest import apply
from pgherd import herdfile
from pgherd.errors import CertificateRefused
from pgherd.local import certificates
from pgherd.sync import Herd

SCHEMA = """
CREATE TABLE note (id bigint PRIMARY KEY, words text, embedding vector(2)) PARTITION BY HASH (id) SPLIT INTO 3 TABLETS;
"""


def other_ca(directory: Path) -> str:
    path = directory / "other.crt"
    path.write_text(certificates.pem_of([certificates.new_ca().certificate]))
    return str(path)


@pytest.mark.parametrize("options", ["", "&replication=true", "&replication=database"])
def test_nothing_is_answered_without_tls(fleet_db: Path, options: str) -> None:
    for node in herdfile.read(fleet_db).nodes:
        dsn = herdfile.read(fleet_db).dsn(fleet_db, node.group).replace("verify-full", "disable")
        with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects .*no encryption"):
            psycopg.connect(dsn + options)


def test_a_dsn_verifies_and_the_version_is_recent(fleet_db: Path) -> None:
    with psycopg.connect(herdfile.read(fleet_db).dsn(fleet_db)) as connection:
        found = connection.execute("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
        assert found == (True, "TLSv1.3")
        shown = connection.execute("SELECT current_setting('ssl_min_protocol_version')").fetchone()
        assert shown == ("TLSv1.2",)


def test_a_herd_of_another_ca_is_refused(fleet_db: Path, tmp_path: Path) -> None:
    file = herdfile.read(fleet_db)
    assert file.tls is not None
    replace(file, tls=replace(file.tls, sslrootcert=other_ca(tmp_path))).write(fleet_db)
    refused = pytest.raises(CertificateRefused, match=r"127\.0\.0\.1:\d+ is not signed by a CA that is trusted here")
    with refused as caught, pgherd.connect(home=fleet_db):
        pass
    assert caught.value.exit_status == 3
    with refused, pgherd.connect(herdfile.read(fleet_db).dsn(fleet_db)):
        pass
    file.write(fleet_db)
    with pgherd.connect(home=fleet_db):
        pass


def test_links_verify_and_searches_go_through_them(fleet: Herd, fleet_db: Path) -> None:
    apply(fleet, SCHEMA)
    fleet.table("note").upsert([{"id": i, "words": f"w{i}", "embedding": [i, 1]} for i in range(60)])
    assert len(fleet.table("note").search([0.0, 1.0], k=60)) == 60
    file = herdfile.read(fleet_db)
    for node in file.nodes:
        with psycopg.connect(file.dsn(fleet_db, node.group), autocommit=True) as connection:
            options = connection.execute(
                "SELECT DISTINCT option_name, option_value FROM pg_foreign_server, pg_options_to_table(srvoptions)"
                " WHERE option_name LIKE 'ssl%' ORDER BY 1"
            ).fetchall()
            assert options == [("sslmode", "verify-full"), ("sslrootcert", "../ca.crt")]
            found = connection.execute("SELECT * FROM pgherd.search_note('[0,1]', 60)").fetchall()
            assert len(found) == 60
            assert connection.execute("SELECT count(*) FROM note").fetchone() == (60,)
            plain = connection.execute(
                "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)"
                " WHERE client_port IS NOT NULL AND NOT ssl"
            ).fetchone()
            assert plain == (0,)


def test_a_link_does_not_talk_to_a_server_of_another_ca(fleet: Herd, fleet_db: Path, tmp_path: Path) -> None:
    apply(fleet, SCHEMA)
    tmp_path.chmod(0o711)
    with psycopg.connect(herdfile.read(fleet_db).dsn(fleet_db, "us-east"), autocommit=True) as connection:
        connection.execute("ALTER SERVER \"pgherd_us-west\" OPTIONS (SET sslrootcert '../server.pem')")
    with pytest.raises(CertificateRefused, match="is not signed by a CA that is trusted here"):
        fleet.sql("SELECT count(*) FROM note", region="us-east")
