"""The token that callers of the HTTP server show: long, random, in a file that only its owner can read."""

from __future__ import annotations

import hmac
import math
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

from ..errors import UnsafeSetting
from ..secretfile import read_secret

MIN_CHARACTERS = 32
MIN_BITS = 96.0
"""What the characters of a token must carry by their own frequencies; 32 random hexadecimal digits carry some 118."""
_HINT = "make one: python3 -c 'import secrets; print(secrets.token_urlsafe(32))' > FILE; chmod 600 FILE"


def read_token(path: Path | None) -> str:
    """The token in the file. Raises UnsafeSetting for a file or a token that is missing, weak or open to others."""
    if path is None:
        raise UnsafeSetting("serving over HTTP needs a token", hint="name its file: --token-file FILE")
    token = read_secret(path, "the token file").strip()
    if not token:
        raise UnsafeSetting(f"the token file {path} is empty", hint=_HINT)
    if not re.fullmatch(r"[!-~]+", token):
        raise UnsafeSetting(f"the token in {path} has blanks or characters outside ASCII", hint=_HINT)
    if len(token) < MIN_CHARACTERS:
        raise UnsafeSetting(
            f"the token in {path} has {len(token)} characters, not {MIN_CHARACTERS} or more", hint=_HINT
        )
    if _bits(token) < MIN_BITS or _is_repeated(token):
        raise UnsafeSetting(f"the token in {path} is easily guessed: too few different characters", hint=_HINT)
    return token


def _bits(token: str) -> float:
    counts = Counter(token).values()
    return sum(-n * math.log2(n / len(token)) for n in counts)


def _is_repeated(token: str) -> bool:
    """Whether it is a short text again and again, or a row of neighbours (abcdef…)."""
    steps = Counter(ord(b) - ord(a) for a, b in pairwise(token))
    pieces = {token[i : i + 4] for i in range(len(token) - 3)}
    return len(pieces) < len(token) * 3 // 4 or steps.most_common(1)[0][1] > len(token) // 2


def is_token(shown: str, token: str) -> bool:
    """Whether ``shown`` is the token; takes as long whether it nearly is or not at all."""
    return hmac.compare_digest(shown.encode("utf-8", "replace"), token.encode())
