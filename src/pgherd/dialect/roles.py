"""CREATE ROLE: a password in clear becomes its SCRAM-SHA-256 verifier before anything else sees it.

The salt is derived from the role's name and the password instead of drawn at random: every node must hold the same
verifier (a client's SCRAM keys are then good for all of them), and applying the same file twice must change nothing.
Two roles with one password still have different salts.
Source: RFC 5802, RFC 7677, RFC 4013 (SASLprep); PostgreSQL's scram-common.c for the verifier's form.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import stringprep
import unicodedata
from typing import Any

from pglast import ast
from pglast.enums import DefElemAction, RoleStmtType

from ..model.schema import ObjectKind, SqlObject
from .source import Place, Statement
from .text import statement as sql_of

_ITERATIONS = 4096
_VERIFIER = re.compile(r"SCRAM-SHA-256\$\d+:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+\Z|md5[0-9a-f]{32}\Z")
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def create_role(node: Any, statement: Statement) -> SqlObject:
    """CREATE ROLE, USER or GROUP as a ROLE object; with a password it is ``secret``."""
    place = statement.place()
    secret = False
    options = list(node.options or ())
    for option in options:
        if option.defname == "sysid":
            raise place.bad("SYSID does nothing", hint="leave it out")
        if option.defname == "password" and option.arg is not None:
            option.arg = ast.String(sval=_verifier(node.role, option.arg.sval, place))
            secret = True
    if node.stmt_type == RoleStmtType.ROLESTMT_USER and all(o.defname != "canlogin" for o in options):
        options.insert(0, ast.DefElem(None, "canlogin", ast.Boolean(True), DefElemAction.DEFELEM_UNSPEC))
    node.stmt_type, node.options = RoleStmtType.ROLESTMT_ROLE, tuple(options) or None
    if node.role.startswith("pg_"):
        raise place.bad(f"role {node.role}: names that begin with pg_ are PostgreSQL's own", hint="use another name")
    return SqlObject(ObjectKind.ROLE, node.role, sql_of(node, place), secret=secret)


def _verifier(role: str, password: str, place: Place) -> str:
    if _VERIFIER.match(password):
        return password
    if not password:
        raise place.bad("an empty password", hint="write a password, or leave PASSWORD out")
    return scram_verifier(role, password)


def scram_verifier(role: str, password: str) -> str:
    """The text that PostgreSQL stores for this password: ``SCRAM-SHA-256$4096:salt$stored:server``."""
    secret = saslprep(password).encode()
    salt = hmac.new(secret, b"pgherd role " + role.encode(), hashlib.sha256).digest()[:16]
    return verifier_with(secret, salt)


def verifier_with(secret: bytes, salt: bytes) -> str:
    """The verifier of a prepared password under this salt."""
    salted = hashlib.pbkdf2_hmac("sha256", secret, salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.new(salted, b"Client Key", hashlib.sha256).digest()).digest()
    server = hmac.new(salted, b"Server Key", hashlib.sha256).digest()
    text = [base64.b64encode(b).decode() for b in (salt, stored, server)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{text[0]}${text[1]}:{text[2]}"


def saslprep(password: str) -> str:
    """The password as client and server hash it; one that SASLprep prohibits is used as it is, as PostgreSQL does."""
    if password.isascii():
        return password
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in password if not stringprep.in_table_b1(c))
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not prepared or any(table(c) for c in prepared for table in _PROHIBITED):
        return password
    if any(stringprep.in_table_d1(c) for c in prepared):
        ends_right = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if not ends_right or any(stringprep.in_table_d2(c) for c in prepared):
            return password
    return prepared
