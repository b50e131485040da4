"""A switchover of a group that somebody else's Patroni runs, through its REST API.

Source: Patroni 4.1 documentation, "Patroni REST API", switchover; "YAML Configuration Settings", restapi.
"""

from __future__ import annotations

import os
from http.client import HTTPException

from ..errors import GroupUnavailable, SwitchoverRefused
from ..exchange import Identity
from ..herdfile import HerdFile, HerdNode
from ..model.tls import SYSTEM, is_loopback
from .rest import Rest

LOGIN = "PGHERD_PATRONI_LOGIN"
"""The environment variable with ``user:password`` of the REST API, where it asks for them."""
TIMEOUT_S = 60.0


def switch_over(file: HerdFile, old: HerdNode, to: str | None) -> str:
    """Ask the Patroni of ``old``, the primary, to hand over, and wait; the new primary's name.

    HTTPS where herd.toml names a CA for it (``rest_cacert``), and on other machines. Raises SwitchoverRefused with
    Patroni's reason, GroupUnavailable when it does not answer, UnsafeSetting for a key that others can read.
    """
    body = {"leader": old.name} | ({"candidate": to} if to else {})
    try:
        status, answer = _api(file, old).ask("POST", "/switchover", body, timeout_s=TIMEOUT_S)
    except (OSError, HTTPException) as error:
        why = _complaint(file, old, error) or error
        raise GroupUnavailable(
            f"Patroni of {old.name} at {old.host}:{old.rest_port} does not answer: {why}", hint=_hint(file, old)
        ) from error
    said = answer.decode(errors="replace").strip()
    if status != 200:
        hint = f"user:password of its REST API, in {LOGIN}" if status == 401 else "patronictl list shows who is in step"
        raise SwitchoverRefused(f"group {old.group} was not switched over: Patroni says: {said}", hint=hint)
    return said.rpartition(" ")[2].strip('"')


def _api(file: HerdFile, node: HerdNode) -> Rest:
    assert node.rest_port is not None
    return Rest(node.host, node.rest_port, _identity(file, node), os.environ.get(LOGIN))


def _identity(file: HerdFile, node: HerdNode) -> Identity | None:
    """What is shown to a node's Patroni, and who is trusted there; None for plain HTTP, on this machine only."""
    said = node.rest or file.rest
    if said is not None or is_loopback(node.host):
        return said
    tls = file.tls_of(node)
    return Identity(None, tls.sslrootcert if tls and tls.sslrootcert != SYSTEM else None)


def _complaint(file: HerdFile, node: HerdNode, error: Exception) -> str | None:
    identity = _identity(file, node)
    return identity.complaint(error, (node.host, node.rest_port or 0)) if identity is not None else None


def _hint(file: HerdFile, node: HerdNode) -> str:
    if _identity(file, node) is None:
        return "it was asked without TLS: where it has some, name its CA in herd.toml (rest_cacert)"
    return "rest_port in herd.toml is its REST API's, rest_cacert its CA's, rest_certificate ours, where it wants one"
