"""Passwords: the verifier is the one of the standard, the same every time, and shown nowhere."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from pgherd.dialect import parse
from pgherd.dialect.roles import saslprep, scram_verifier, verifier_with
from pgherd.errors import BadSchema

# RFC 7677, section 3
SALT = "W22ZaJ0SNY7soEsUEjb6gQ=="
NONCE = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
AUTH = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={NONCE},s={SALT},i=4096,c=biws,r={NONCE}"
PROOF = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SIGNATURE = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_verifier_accepts_the_exchange_of_rfc_7677() -> None:
    text = verifier_with(b"pencil", base64.b64decode(SALT))
    head, _, keys = text.rpartition("$")
    assert head == f"SCRAM-SHA-256$4096:{SALT}"
    stored, server = (base64.b64decode(k) for k in keys.split(":"))
    signature = hmac.new(stored, AUTH.encode(), hashlib.sha256).digest()
    client_key = bytes(a ^ b for a, b in zip(signature, base64.b64decode(PROOF), strict=True))
    assert hashlib.sha256(client_key).digest() == stored
    assert base64.b64encode(hmac.new(server, AUTH.encode(), hashlib.sha256).digest()).decode() == SIGNATURE


def test_verifier_is_the_same_every_time_and_differs_between_roles() -> None:
    assert scram_verifier("bob", "pencil") == scram_verifier("bob", "pencil")
    assert scram_verifier("bob", "pencil") != scram_verifier("eve", "pencil")


@pytest.mark.parametrize(
    ("written", "prepared"),
    [
        ("plain", "plain"),
        ("I\u00adX", "IX"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("a\u0080", "a\u0080"),
        ("\u0627\u0031", "\u0627\u0031"),
    ],
)
def test_saslprep(written: str, prepared: str) -> None:
    assert saslprep(written) == prepared


def test_user_becomes_a_role_that_may_log_in() -> None:
    schema = parse("CREATE USER bob PASSWORD 'pencil' IN ROLE staff; CREATE ROLE staff; CREATE GROUP g")
    bob, staff, group = schema.objects
    assert bob.secret
    assert scram_verifier("bob", "pencil") in bob.sql
    assert bob.sql.startswith("CREATE ROLE bob WITH LOGIN")
    assert "pencil" not in repr(schema)
    assert "SCRAM" not in bob.sealed.sql
    assert (staff.secret, staff.sql, group.sql) == (False, "CREATE ROLE staff", "CREATE ROLE g")


def test_verifiers_are_kept() -> None:
    verifier = scram_verifier("bob", "pencil")
    assert f"'{verifier}'" in parse(f"CREATE ROLE bob PASSWORD '{verifier}'").objects[0].sql


@pytest.mark.parametrize(
    "text",
    [
        "CREATE ROLE bob LOGIN 'pencil'",
        "CREATE ROLE bob PASSWORD 'pencil' LOGIN SYSID 3",
        "CREATE ROLE bob PASSWORD 'pencil",
        "CREATE ROLE bob LOGIN E'pencil'",
        "CREATE ROLE bob LOGIN $$pencil$$",
        "CREATE USER bob E'pencil'",
        "CREATE USER bob U&'pencil'",
        "CREATE USER E'pencil' x",
        "ALTER ROLE bob PASSWORD 'pencil'",
        "CREATE ROLE pg_bob PASSWORD 'pencil'",
    ],
)
def test_errors_never_show_a_password(text: str) -> None:
    with pytest.raises(BadSchema) as caught:
        parse(text)
    chain: list[BaseException] = [caught.value]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    assert "pencil" not in "".join(str(e) for e in chain)
    assert "pencil" not in caught.value.hint
