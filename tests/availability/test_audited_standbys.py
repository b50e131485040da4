"""Receivers of WAL of a replicated group: its own standbys are known, whoever only bears their name is not."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

import pgherd
from availability.replicated import Replicated, wait_until
from pgherd.audit.report import Report
from pgherd.audit.run import audit
from pgherd.local.installation import find
from pgherd.local.user import server_user

pytestmark = pytest.mark.long


def audited(replicated: Replicated) -> Report:
    async def look() -> Report:
        async with pgherd.connect_async(home=replicated.home) as herd:
            return await audit(herd, replicated.file, replicated.home)

    return asyncio.run(look())


def found(replicated: Replicated) -> set[tuple[str, str, str]]:
    return {(f.kind, f.severity.value, f.node) for f in audited(replicated).outcome.findings}


def test_a_herd_with_standbys_is_clean(replicated: Replicated) -> None:
    report = audited(replicated)
    assert (report.outcome.findings, report.complete) == ((), True)
    assert sum(x.what.startswith("standby ") for x in report.outcome.looked) == 2


@pytest.mark.parametrize("cascading", [False, True], ids=["of the primary", "of a standby"])
def test_a_receiver_that_bears_the_name_of_a_standby(replicated: Replicated, tmp_path: Path, cascading: bool) -> None:
    primary = replicated.primary()
    first, second = (n for n in replicated.nodes if n != primary)
    source = first if cascading else primary
    conninfo = make_conninfo(
        host=source.host,
        port=source.port,
        user=replicated.file.user,
        password=replicated.local.password(),
        application_name=second.name,
    )
    installation = find(server_user())
    argv = [str(installation.program("pg_receivewal")), "-d", conninfo, "-D", str(tmp_path)]
    receiver = subprocess.Popen(argv, env={**os.environ, **installation.env}, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: found(replicated) == {("unknown_standby", "violation", source.name)}, 30)
    finally:
        receiver.terminate()
        receiver.wait()
    wait_until(lambda: found(replicated) == set(), 30)
