"""Where groups are looked for."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from pgherd.engines.servers.whereabouts import Whereabouts


def test_a_group_that_has_left_cant_be_reached() -> None:
    known = Whereabouts({}, ())
    for node in (None, "n1"):
        with pytest.raises(psycopg.OperationalError, match="group us-east has left the herd"):
            known.connect_now("us-east", node)
        with pytest.raises(psycopg.OperationalError, match="group us-east has left the herd"):
            asyncio.run(known.connect("us-east", node))
