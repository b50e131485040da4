"""What a server must say of itself to join a herd; on real servers in tests/fault/test_members.py, but for versions."""

from __future__ import annotations

import pytest

from pgherd.engines.candidate import check_facts
from pgherd.errors import ChangeRefused, WrongVersion

MEMBER = (18, "18.1", False, True, "logical", 64, 32, 32, 8, "UTF8", True, [])


def test_another_major_version_is_named_with_the_herds() -> None:
    check_facts(MEMBER, (18, "18.3", *MEMBER[2:]), "db:5432")
    for major, version in ((17, "17.6"), (19, "19beta1")):
        with pytest.raises(
            WrongVersion, match=f"db:5432 is PostgreSQL {version}, the herd's servers are 18.1"
        ) as found:
            check_facts(MEMBER, (major, version, *MEMBER[2:]), "db:5432")
        assert "needs PostgreSQL 18" in (found.value.hint or "")


def test_a_standby_and_another_encoding_are_refused() -> None:
    with pytest.raises(ChangeRefused, match="it is a standby"):
        check_facts(MEMBER, (*MEMBER[:2], True, *MEMBER[3:]), "db:5432")
    with pytest.raises(ChangeRefused, match="in LATIN1, the herd's in UTF8"):
        check_facts(MEMBER, (*MEMBER[:9], "LATIN1", *MEMBER[10:]), "db:5432")
