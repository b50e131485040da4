"""Bob Jenkins' lookup3 as PostgreSQL uses it: 64-bit, seeded, for one key and for whole columns of keys.

Source: hash_bytes_extended and hash_bytes_uint32_extended in PostgreSQL's src/common/hashfn.c; lookup3.c (2006).
Results are those of little-endian servers; a big-endian one (s390x) hashes byte strings differently.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
Hashes = NDArray[np.uint64]

HASH_PARTITION_SEED = 0x7A5B22367996DCFD
"""The seed of every hash-partitioned table (src/include/catalog/partition.h)."""

_START = 0x9E3779B9 + 3923095
_COMBINE = 0x49A0F4DD15E5A8E3
_M32 = 0xFFFFFFFF
_M64 = 0xFFFFFFFFFFFFFFFF
_SEED_HIGH, _SEED_LOW = HASH_PARTITION_SEED >> 32, HASH_PARTITION_SEED & _M32
_BLOCK_BYTES = 12
_CHUNK_ROWS = 1 << 14
"""Rows worked on at once: a handful of such arrays of 4-byte words stays in a core's cache."""

_MIX = (4, 6, 8, 16, 19, 4)
_FINAL = (14, 11, 25, 16, 4, 14, 24)


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for k in _MIX:
        a = (a - c) & _M32 ^ ((c << k) & _M32 | c >> (32 - k))
        c = (c + b) & _M32
        a, b, c = b, c, a  # each step does to the next word what the one before did
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    for k in _FINAL:
        c = ((c ^ b) - ((b << k) & _M32 | b >> (32 - k))) & _M32
        a, b, c = b, c, a
    # seven steps: the word that was written last stands in b, the one before it in a
    return a << 32 | b


def _seeded(length: int) -> tuple[int, int, int]:
    start = (_START + length) & _M32
    return _mix((start + _SEED_HIGH) & _M32, (start + _SEED_LOW) & _M32, start)


_WORD_STATE = _seeded(4)


def hash_word(word: int) -> int:
    """The partition hash of one 32-bit value."""
    a, b, c = _WORD_STATE
    return _final((a + word) & _M32, b, c)


def hash_bytes(data: bytes) -> int:
    """The partition hash of one byte string."""
    words: tuple[int, ...]
    a, b, c = _seeded(len(data))
    blocks = len(data) // _BLOCK_BYTES
    words = struct.unpack(f"<{(blocks + 1) * 3}I", data.ljust((blocks + 1) * _BLOCK_BYTES, b"\0"))
    for i in range(0, blocks * 3, 3):
        a, b, c = _mix((a + words[i]) & _M32, (b + words[i + 1]) & _M32, (c + words[i + 2]) & _M32)
    # the lowest byte of the last word belongs to the length
    return _final((a + words[-3]) & _M32, (b + words[-2]) & _M32, (c + (words[-1] << 8)) & _M32)


def combine(row: int, column: int) -> int:
    """The hash of a row's key so far, and of its next column (hash_combine64)."""
    return row ^ (column + _COMBINE + (row << 54) + (row >> 7)) & _M64


def combine_rows(rows: Hashes, column: Hashes) -> Hashes:
    """``combine`` for (n,) uint64 arrays."""
    mixed: Hashes = column + np.uint64(_COMBINE) + (rows << np.uint64(54)) + (rows >> np.uint64(7))
    return rows ^ mixed


def hash_words(words: Words) -> Hashes:
    """``hash_word`` for an (n,) uint32 array; (n,) uint64."""
    out = np.empty(len(words), np.uint64)
    for at in range(0, len(words), _CHUNK_ROWS):
        part = words[at : at + _CHUNK_ROWS]
        a, b, c = (np.full(len(part), word, np.uint32) for word in _WORD_STATE)
        a += part
        out[at : at + _CHUNK_ROWS] = _final_rows(a, b, c)
    return out


def hash_byte_matrix(matrix: NDArray[np.uint8]) -> Hashes:
    """``hash_bytes`` of each row of an (n, width) uint8 array; (n,) uint64."""
    n, width = matrix.shape
    stride = (width // _BLOCK_BYTES + 1) * _BLOCK_BYTES
    padded = np.zeros((n, stride), np.uint8)
    padded[:, :width] = matrix
    starts = np.arange(n, dtype=np.intp) * (stride // 4)
    return _hash_spans(padded.reshape(-1).view("<u4"), starts, np.full(n, width, np.int64))


def hash_byte_rows(rows: Sequence[bytes]) -> Hashes:
    """``hash_bytes`` of n byte strings of any lengths; (n,) uint64."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    widths = (lengths // _BLOCK_BYTES + 1) * _BLOCK_BYTES
    flat = b"".join(map(bytes.ljust, rows, widths.tolist(), repeat(b"\0")))
    starts = ((np.cumsum(widths) - widths) // 4).astype(np.intp)
    return _hash_spans(np.frombuffer(flat, "<u4"), starts, lengths)


def _hash_spans(words: Words, starts: NDArray[np.intp], lengths: NDArray[np.int64]) -> Hashes:
    """Hash n spans of zero-padded ``words``: span i starts at word ``starts[i]`` and has ``lengths[i]`` bytes."""
    out = np.empty(len(starts), np.uint64)
    for at in range(0, len(starts), _CHUNK_ROWS):
        part = slice(at, at + _CHUNK_ROWS)
        # longest first, so that the rows that still have a whole block are always a prefix
        order = np.argsort(-(lengths[part] // _BLOCK_BYTES), kind="stable")
        out[part][order] = _hash_sorted(words, starts[part][order], lengths[part][order])
    return out


def _hash_sorted(words: Words, starts: NDArray[np.intp], lengths: NDArray[np.int64]) -> Hashes:
    start = np.uint32(_START & _M32) + lengths.astype(np.uint32)
    a, b, c = start + np.uint32(_SEED_HIGH), start + np.uint32(_SEED_LOW), start
    _mix_rows(a, b, c)
    blocks = lengths // _BLOCK_BYTES
    for i in range(int(blocks[0])):
        live = int(np.searchsorted(-blocks, -i))
        here = starts[:live] + 3 * i
        a[:live] += words[here]
        b[:live] += words[here + 1]
        c[:live] += words[here + 2]
        _mix_rows(a[:live], b[:live], c[:live])
    tail = starts + 3 * blocks
    a += words[tail]
    b += words[tail + 1]
    c += words[tail + 2] << np.uint32(8)
    return _final_rows(a, b, c)


def _rotated(x: Words, k: int) -> Words:
    high = x << np.uint32(k)
    high |= x >> np.uint32(32 - k)
    return high


def _mix_rows(a: Words, b: Words, c: Words) -> None:
    for k in _MIX:
        a -= c
        a ^= _rotated(c, k)
        c += b
        a, b, c = b, c, a


def _final_rows(a: Words, b: Words, c: Words) -> Hashes:
    for k in _FINAL:
        c ^= b
        c -= _rotated(b, k)
        a, b, c = b, c, a
    return a.astype(np.uint64) << np.uint64(32) | b
