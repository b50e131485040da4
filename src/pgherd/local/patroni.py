"""What Patroni is told: the settings of a group, and one node's own file. Pure; where it is kept is others' business.

The settings were found by measuring, and each protects something: ``synchronous_mode`` with ``strict``: a write is
acknowledged only when standbys hold it; ``synchronous_node_count``: all standbys of three nodes, so that none is behind
when it must take over; ``maximum_lag_on_failover`` 0: nobody who is behind is promoted; ``failsafe_mode``: writes go on
while etcd is gone. ttl, loop_wait and retry_timeout are at Patroni's floors; below, it raises them, or fails to elect.
Not ``synchronous_mode: quorum``: with dropped leader keys it lost acknowledged rows in double failures.
Source: Patroni 4.1 documentation, "Dynamic Configuration Settings", "YAML Configuration Settings", "Replication modes".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..dcs import NAMESPACE, Endpoint
from ..herdfile import HerdNode, TwoNode
from . import certificates, settings

RUN = """
import sys
from patroni import __main__, api
api.RestApiHandler.disable_nagle_algorithm = True
sys.argv[:2] = ["patroni"]
__main__.main()
"""
"""Runs it with the arguments ``patroni FILE``. With TLS 1.3 its first words, session tickets, are acknowledged late by
who waits for an answer, and without this the answer waits for that: 40 ms, in a race of standbys."""
REST_USER = "pgherd"
ETCD_USER = "root"
_LOG_BYTES = 4 << 20
_OWN_PARAMETERS = ("listen_addresses",)
"""What each node sets for itself."""


def group_settings(nodes: int, share: int, two_node: TwoNode | None) -> dict[str, Any]:
    """The settings that all nodes of a group share; kept in etcd. ``share`` servers have this machine among them."""
    parameters = {k: v for k, v in settings.parameters(share).items() if k not in _OWN_PARAMETERS}
    return {
        "ttl": 20,
        "loop_wait": 1,
        "retry_timeout": 3,
        "primary_start_timeout": 0,
        "primary_stop_timeout": 3,
        "maximum_lag_on_failover": 0,
        "failsafe_mode": True,
        "synchronous_mode": nodes > 1,
        "synchronous_mode_strict": nodes > 1 and two_node is not TwoNode.AVAILABLE,
        "synchronous_node_count": max(1, min(2, nodes - 1)),
        "postgresql": {
            "use_pg_rewind": True,
            "use_slots": True,
            "remove_data_directory_on_rewind_failure": True,
            "remove_data_directory_on_diverged_timelines": True,
            "parameters": parameters
            | {
                "hot_standby": "on",
                "wal_log_hints": "on",
                "wal_keep_size": "128MB",
                "wal_sender_timeout": "3s",
                "wal_receiver_timeout": "3s",
                "wal_retrieve_retry_interval": "500ms",
            },
        },
    }


def node_settings(
    node: HerdNode,
    *,
    user: str,
    password: str,
    rest_password: str,
    etcd: Sequence[Endpoint],
    etcd_password: str,
    bindir: Path,
    preference: int,
    tls: bool,
    mutual_tls: bool,
    pgaudit: bool,
) -> dict[str, Any]:
    """One node's own file, as JSON, which is YAML as well; it holds passwords. The highest ``preference`` leads.

    ``tls``: with servers; ``mutual_tls``: with etcd and among Patronis. ``pgaudit``: it is there.
    """
    assert node.data_directory is not None
    data = Path(node.data_directory)
    login = {"username": user, "password": password, "sslmode": "disable"}
    own, ca = str(data.parent / certificates.SERVER), str(data.parent / certificates.CA_CERT)
    if tls:
        login |= {"sslmode": "verify-full", "sslrootcert": ca}
    rest = f"{node.host}:{node.rest_port}"
    serving = {"certfile": own, "keyfile": own, "cafile": ca, "verify_client": "required"} if mutual_tls else {}
    asking = {"cacert": ca, "certfile": own, "keyfile": own} if mutual_tls else {}
    own_parameters = (settings.TLS if tls else {}) | (settings.audited(data) if pgaudit else {})
    electing = {"protocol": "https", "cacert": ca, "cert": own, "key": own} if mutual_tls else {}
    return {
        "scope": node.group,
        "namespace": NAMESPACE,
        "name": node.name,
        "log": {"dir": str(data.parent), "file_num": 2, "file_size": _LOG_BYTES, "level": "INFO"},
        "restapi": {
            "listen": rest,
            "connect_address": rest,
            "authentication": {"username": REST_USER, "password": rest_password},
            **serving,
        },
        "ctl": asking,
        "etcd3": {
            "hosts": [f"{host}:{port}" for host, port in etcd],
            "username": ETCD_USER,
            "password": etcd_password,
            **electing,
        },
        "postgresql": {
            "listen": f"{node.host}:{node.port}",
            "connect_address": f"{node.host}:{node.port}",
            "data_dir": str(data),
            "bin_dir": str(bindir),
            "pgpass": str(data.parent / "pgpass"),
            "authentication": {"superuser": login, "replication": login, "rewind": login},
            "create_replica_methods": ["basebackup"],
            "basebackup": [{"checkpoint": "fast"}],
        }
        | ({"parameters": own_parameters} if own_parameters else {})
        | ({"pg_hba": list(settings.HBA)} if tls else {}),
        "tags": {"failover_priority": preference},
    }
