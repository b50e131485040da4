"""Every error pgherd raises: one root, a stable code each, and one table of exit statuses.

A message says what was wrong and where; the hint says what to do about it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, ClassVar

__all__ = [
    "AlreadyRunning",
    "AnswerCrossesRegion",
    "AnswerFailed",
    "BackupDamaged",
    "BackupFailed",
    "BadInput",
    "BadRow",
    "BadSchema",
    "CertificateRefused",
    "ChangeRefused",
    "DimensionMismatch",
    "DrillFailed",
    "DrillRefused",
    "EmbeddingCrossesRegion",
    "EmbeddingFailed",
    "ExitStatus",
    "GroupUnavailable",
    "HerdBusy",
    "HerdError",
    "InDoubt",
    "LocalServerError",
    "NoSuchHerd",
    "PlacementUnsatisfied",
    "QueryRefused",
    "ReportAltered",
    "ResidencyRefused",
    "ServerRefused",
    "StalePlan",
    "StaleTopology",
    "StoreUnavailable",
    "SwitchoverRefused",
    "SyntaxProblem",
    "UnknownName",
    "UnsafeSetting",
    "WouldOverwrite",
    "WrongVersion",
]


class ExitStatus(IntEnum):
    """What a command's exit status means."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    REFUSED = 3


class HerdError(Exception):
    """Root of pgherd's errors. Catch this to catch them all.

    ``code`` is stable and machine-readable, ``hint`` says what to do, ``retryable`` whether trying again can help.
    """

    code: ClassVar[str] = "failed"
    exit_status: ClassVar[ExitStatus] = ExitStatus.FAILED
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def as_json(self) -> dict[str, Any]:
        """The ``error`` object of every surface."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "retryable": self.retryable}


class BadInput(HerdError):
    """An argument, option or value is not usable: change it and call again."""

    code = "bad_input"
    exit_status = ExitStatus.BAD_INPUT


class UnknownName(BadInput):
    """A table, column, region, group or tablespace that is not in the herd was named: check the spelling."""

    code = "unknown_name"


class BadSchema(BadInput):
    """The schema file says something that cannot work: the message names the statement and line."""

    code = "bad_schema"


class SyntaxProblem(BadSchema):
    """The schema file is not valid SQL: correct it at the line and column named."""

    code = "syntax_error"


class PlacementUnsatisfied(BadInput):
    """A tablespace asks for places or replicas that this herd lacks: add servers or change the policy."""

    code = "placement_unsatisfied"


class BadRow(BadInput):
    """A row cannot be stored (missing key, no partition for it, NaN in a vector): nothing of its batch was written."""

    code = "bad_row"


class DimensionMismatch(BadRow):
    """A vector's length is not the column's: use the embedding model that the column was made for."""

    code = "dimension_mismatch"


class ChangeRefused(HerdError):
    """The edited schema asks for what pgherd will not do online: the message says why, the hint what to do."""

    code = "change_refused"
    exit_status = ExitStatus.REFUSED


class QueryRefused(HerdError):
    """A query of a language model asks for more than reading tables of its region: the message says what is refused."""

    code = "query_refused"
    exit_status = ExitStatus.REFUSED


class UnsafeSetting(HerdError):
    """A token, file mode, address or privilege would let in or out more than it should: the message says which."""

    code = "unsafe_setting"
    exit_status = ExitStatus.REFUSED


class StalePlan(HerdError):
    """The herd changed since the plan was made: make the plan again."""

    code = "stale_plan"
    exit_status = ExitStatus.REFUSED
    retryable = True


class StaleTopology(HerdError):
    """The herd changed while a call was under way; nothing was written: call again, the client reads it anew."""

    code = "stale_topology"
    retryable = True


class HerdBusy(HerdError):
    """Another change is running on this herd: wait for it, then call again."""

    code = "herd_busy"
    retryable = True


class GroupUnavailable(HerdError):
    """A group of servers did not answer: see ``pgherd status``; ``pgherd up`` starts local servers again."""

    code = "group_unavailable"
    retryable = True


class StoreUnavailable(HerdError):
    """etcd, through which groups with replicas elect a primary, does not answer: ``pgherd up`` starts it again."""

    code = "store_unavailable"
    retryable = True


class SwitchoverRefused(HerdError):
    """A primary would not hand over: the reason is in the message; it stays what it was."""

    code = "switchover_refused"
    retryable = True


class ServerRefused(HerdError):
    """PostgreSQL refused a statement: its own message is given, and kept in ``__cause__``."""

    code = "server_refused"


class EmbeddingFailed(HerdError):
    """An embedding endpoint did not answer, or not as its API promises: check its URL, key and model, then again."""

    code = "embedding_failed"
    retryable = True


class EmbeddingCrossesRegion(HerdError):
    """Text that is pinned to a region would go to an endpoint elsewhere: nothing was sent; give that region one."""

    code = "embedding_crosses_region"
    exit_status = ExitStatus.REFUSED


class AnswerFailed(HerdError):
    """An answering endpoint did not answer, or not as its API promises: check its URL, key and model, then again."""

    code = "answer_failed"
    retryable = True


class AnswerCrossesRegion(HerdError):
    """Rows that are pinned would go to a model elsewhere: none was sent; give their region an answering endpoint."""

    code = "answer_crosses_region"
    exit_status = ExitStatus.REFUSED


class InDoubt(HerdError):
    """A commit may or may not have happened: pgherd settles it at the next start; read before writing again."""

    code = "in_doubt"


class LocalServerError(HerdError):
    """A local server could not be installed, started or stopped: the message quotes the end of its log."""

    code = "local_server"


class NoSuchHerd(HerdError):
    """There is no herd where one was looked for: make one with ``pgherd up``, or name its home or DSN."""

    code = "no_such_herd"


class AlreadyRunning(HerdError):
    """Another pgherd command holds this home directory: wait for it to end."""

    code = "already_running"
    retryable = True


class WrongVersion(HerdError):
    """The home directory was written by another version of pgherd or PostgreSQL: use that version, or a new home."""

    code = "wrong_version"
    exit_status = ExitStatus.REFUSED


class CertificateRefused(HerdError):
    """A server's certificate has expired or is not trusted, or it offers no TLS: the message says which and why."""

    code = "certificate"
    exit_status = ExitStatus.REFUSED


class BackupFailed(HerdError):
    """A backup could not be taken: the message says which group and why; earlier backups are untouched."""

    code = "backup_failed"
    retryable = True


class BackupDamaged(HerdError):
    """A backup lacks a group, a file or WAL, or holds changed ones: the message names it. Use another backup."""

    code = "backup_damaged"


class WouldOverwrite(HerdError):
    """A restore would go over data that is there: nothing was touched; name an empty or new home."""

    code = "would_overwrite"
    exit_status = ExitStatus.REFUSED


class ResidencyRefused(HerdError):
    """Rows would leave the regions where they must stay: nothing was done; the message names the table."""

    code = "residency"
    exit_status = ExitStatus.REFUSED


class ReportAltered(HerdError):
    """A report of an audit is not signed, not with this key, or was changed since: trust nothing in it."""

    code = "report_altered"
    exit_status = ExitStatus.REFUSED


class DrillRefused(HerdError):
    """A drill would break what has nothing to take over, or is not this machine's to break: nothing was touched."""

    code = "drill_refused"
    exit_status = ExitStatus.REFUSED


class DrillFailed(HerdError):
    """A group did not come back from a drill in time: the message says what it lacks; ``pgherd up`` repairs it."""

    code = "drill_failed"
