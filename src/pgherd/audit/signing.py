"""The herd's key and what it signs: Ed25519 over a report's JSON in canonical form (sorted keys, no blanks, UTF-8).

The key is made at its first use: ``<home>/audit.key``, mode 0600; ``<home>/audit.pub`` is for whoever checks reports.
Source: RFC 8032 (Ed25519), as the cryptography library implements it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import BadInput, ReportAltered, UnsafeSetting
from ..herdfile import write_atomically
from ..secretfile import read_secret

KEY, PUBLIC = "audit.key", "audit.pub"
ALGORITHM = "ed25519"
_PAGE_MARK = "\n<!-- pgherd audit signature "
_PAGE_END = " -->\n"
_DATA_MARK = '<script type="application/json" id="report">'


def key_of(home: Path) -> Ed25519PrivateKey:
    """The home's key, made now if there is none. Raises UnsafeSetting if others can read it, or it is not a key."""
    path = home / KEY
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_atomically(path, private.decode(), mode=0o600)
        write_atomically(home / PUBLIC, _public_text(key.public_key()), mode=0o644)
        return key
    text = read_secret(path, "the audit key")
    try:
        found = serialization.load_pem_private_key(text.encode(), None)
    except ValueError as error:
        raise UnsafeSetting(
            f"{path} is not a private key", hint="put it back, or remove it: a new one is made"
        ) from error
    if not isinstance(found, Ed25519PrivateKey):
        raise UnsafeSetting(f"{path} is not an Ed25519 key", hint="put it back, or remove it: a new one is made")
    if not (home / PUBLIC).exists():
        write_atomically(home / PUBLIC, _public_text(found.public_key()), mode=0o644)
    return found


def read_public(path: Path) -> Ed25519PublicKey:
    """A public key's file. Raises BadInput."""
    try:
        found = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise BadInput(
            f"{path} can't be read: {error.strerror}", hint="name the herd's audit.pub with --key"
        ) from error
    except ValueError as error:
        raise BadInput(f"{path} is not a public key", hint="name the herd's audit.pub with --key") from error
    if not isinstance(found, Ed25519PublicKey):
        raise BadInput(f"{path} is not an Ed25519 key", hint="name the herd's audit.pub with --key")
    return found


def key_id(key: Ed25519PublicKey) -> str:
    """A short name for a key: the head of its SHA-256."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def canonical(document: dict[str, Any]) -> bytes:
    """What is signed of a document: all of it but its signature."""
    body = {k: v for k, v in document.items() if k != "signature"}
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def signed(document: dict[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """The document with its signature."""
    return {**document, "signature": _signature(canonical(document), key)}


def sign_page(page: str, key: Ed25519PrivateKey) -> str:
    """A page with a signature of all its bytes at the end: what is to be seen is what was signed."""
    return page + _PAGE_MARK + json.dumps(_signature(page.encode(), key)) + _PAGE_END


def verify(text: str, key: Ed25519PublicKey) -> dict[str, Any]:
    """The report in a signed JSON document or page.

    Raises BadInput for something else, ReportAltered when it is not as the holder of the key signed it.
    """
    if not text.lstrip().startswith("<"):
        return _verified_json(text, key)
    head, mark, tail = text.rpartition(_PAGE_MARK)
    if not mark or not tail.endswith(_PAGE_END):
        raise _unsigned("the page")
    _check(head.encode(), _parsed(tail.removesuffix(_PAGE_END)), key)
    return _verified_json(head.partition(_DATA_MARK)[2].partition("</script>")[0], key)


def embedded(document: dict[str, Any]) -> str:
    """A report inside a page, where :func:`verify` finds it."""
    text = json.dumps(document, ensure_ascii=False).replace("<", "\\u003c")
    return f"{_DATA_MARK}{text}</script>"


def _verified_json(text: str, key: Ed25519PublicKey) -> dict[str, Any]:
    document = _parsed(text)
    if not isinstance(document.get("signature"), dict):
        raise _unsigned("the report")
    _check(canonical(document), document["signature"], key)
    return document


def _signature(what: bytes, key: Ed25519PrivateKey) -> dict[str, str]:
    value = base64.b64encode(key.sign(what)).decode()
    return {"algorithm": ALGORITHM, "key_id": key_id(key.public_key()), "value": value}


def _check(what: bytes, signature: dict[str, Any], key: Ed25519PublicKey) -> None:
    if signature.get("key_id") != key_id(key):
        raise ReportAltered(
            f"the report was signed with key {signature.get('key_id')}, not with {key_id(key)}",
            hint="name the audit.pub of the herd that made it (--key)",
        )
    try:
        key.verify(base64.b64decode(str(signature.get("value")), validate=True), what)
    except (InvalidSignature, ValueError) as error:
        raise ReportAltered(
            "the report is not as it was signed: something in it was changed",
            hint="trust nothing in it; make a new one with pgherd audit",
        ) from error


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadInput("this is no report of an audit", hint="name a file that pgherd audit wrote") from error
    if not isinstance(found, dict):
        raise BadInput("this is no report of an audit", hint="name a file that pgherd audit wrote")
    return found


def _unsigned(what: str) -> ReportAltered:
    return ReportAltered(f"{what} bears no signature", hint="reports of a herd with a home are signed; make a new one")


def _public_text(key: Ed25519PublicKey) -> str:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
