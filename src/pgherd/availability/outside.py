"""A switchover of a group that somebody else's Patroni runs, through its REST API.

Source: Patroni 4.1 documentation, "Patroni REST API", switchover; "YAML Configuration Settings", restapi.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection

from ..errors import GroupUnavailable, SwitchoverRefused
from ..herdfile import HerdFile, HerdNode
from ..model.tls import SYSTEM, is_loopback

LOGIN = "PGHERD_PATRONI_LOGIN"
"""The environment variable with ``user:password`` of the REST API, where it asks for them."""
TIMEOUT_S = 60.0


def switch_over(file: HerdFile, old: HerdNode, to: str | None) -> str:
    """Ask the Patroni of ``old``, the primary, to hand over, and wait; the new primary's name.

    HTTPS, verified with the certificates that the node's ``sslrootcert`` names, unless it is on this machine. Raises
    SwitchoverRefused with Patroni's reason, GroupUnavailable when it does not answer.
    """
    body = {"leader": old.name} | ({"candidate": to} if to else {})
    connection = _connection(file, old)
    try:
        connection.request("POST", "/switchover", json.dumps(body), _headers())
        response = connection.getresponse()
        status, said = response.status, response.read().decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        raise GroupUnavailable(
            f"Patroni of {old.name} at {old.host}:{old.rest_port} does not answer: {error}",
            hint="rest_port in herd.toml is its REST API's: HTTPS on other machines, HTTP on this one",
        ) from error
    finally:
        connection.close()
    if status != 200:
        hint = f"user:password of its REST API, in {LOGIN}" if status == 401 else "patronictl list shows who is in step"
        raise SwitchoverRefused(f"group {old.group} was not switched over: Patroni says: {said}", hint=hint)
    return said.rpartition(" ")[2].strip('"')


def _connection(file: HerdFile, node: HerdNode) -> HTTPConnection:
    if is_loopback(node.host):
        return HTTPConnection(node.host, node.rest_port, timeout=TIMEOUT_S)
    tls = file.tls_of(node)
    root = tls.sslrootcert if tls and tls.sslrootcert != SYSTEM else None
    return HTTPSConnection(
        node.host, node.rest_port, timeout=TIMEOUT_S, context=ssl.create_default_context(cafile=root)
    )


def _headers() -> dict[str, str]:
    login = os.environ.get(LOGIN)
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
