"""Schema file text -> statements that libpg_query can read.

YugabyteDB writes a few clauses that PostgreSQL's grammar lacks. They are found among the scanner's tokens, so that
comments, quoted names and dollar-quoted bodies are safe, and are overwritten with blanks: every other character keeps
its place, and an error's position is the position in the file.
Reference: YugabyteDB's YSQL pages on CREATE TABLE, CREATE INDEX and CREATE TABLESPACE.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from pglast.parser import ParseError, scan

from ..model.names import MAX_IDENTIFIER_BYTES
from .source import Place, Source, Statement

_COMMENTS = frozenset({"SQL_COMMENT", "C_COMMENT"})
MAX_SHARDS = 64_000
"""the most shards that a table may ask for, as in Citus"""
_SORTING = frozenset({"hash", "asc", "desc"})
_KEY_OPTIONS = _SORTING | {"nulls", "first", "last"}
_META_HINT = "psql's commands are not SQL: take the line out"


class Token(NamedTuple):
    """A token: its kind as the scanner calls it, its text as written, its place in the file."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """The text in lower case if it is a word, else empty: a quoted name is none, nor is E'…' or U&'…'."""
        return self.text.lower() if self.text[:1].isalpha() and not {"'", '"'} & set(self.text) else ""

    @property
    def ident(self) -> str:
        """The identifier that this token spells, folded or unquoted."""
        if self.text.startswith('"'):
            return self.text[1:-1].replace('""', '"')
        return "".join(c.lower() if c.isascii() else c for c in self.text)  # as PostgreSQL folds in UTF-8


def statements(source: Source) -> Iterator[Statement]:
    """The file's statements in order, translated. Raises SyntaxProblem and BadSchema with the place."""
    for tokens in _split(_tokens(source)):
        yield _Translation(source, tokens).run()


def _tokens(source: Source) -> list[Token]:
    text = source.text
    while True:
        found, problem = _scan(text)
        tokens = [_token(text, t) for t in found if t.name not in _COMMENTS]
        blanked = _without_restrict(text, tokens)
        if blanked is None:
            break
        text = blanked
    for statement in _split(tokens):
        _refuse_psql(source, statement)
    if problem is not None:
        place = Place(source, problem.args[1] or 0, first_words(tokens[-1:]) or "text")
        raise place.syntax(problem.args[0].partition(" at or near")[0])
    for t in tokens:
        if t.kind in ("IDENT", "UIDENT") and len(t.ident.encode()) > MAX_IDENTIFIER_BYTES:
            raise Place(source, t.start, t.text).bad(
                f"a name of more than {MAX_IDENTIFIER_BYTES} bytes, which PostgreSQL would cut", hint="shorten it"
            )
    return tokens


def _scan(text: str) -> tuple[list[Any], ParseError | None]:
    """The tokens up to the first thing that is none, and what the scanner says of that."""
    problem, end = None, len(text)
    while True:
        try:
            return list(scan(text[:end])), problem
        except ParseError as e:
            problem = problem or e
            # the place may be inside a token, whose beginning then fails in its turn
            end = min(end - 1, e.args[1] if e.args[1] is not None else end)


def _token(text: str, t: Any) -> Token:
    return Token(t.name, text[t.start : t.end + 1], t.start, t.end + 1)


def _without_restrict(text: str, tokens: list[Token]) -> str | None:
    """pg_dump wraps its output in psql's ``\\restrict``: blank such a line, or None if there is none left."""
    for slash, word in pairwise(tokens):
        if slash.kind == "ASCII_92" and word.word in ("restrict", "unrestrict") and word.start == slash.end:
            end = text.find("\n", slash.start)
            end = len(text) if end < 0 else end
            return text[: slash.start] + " " * (end - slash.start) + text[end:]
    return None


def _refuse_psql(source: Source, tokens: list[Token]) -> None:
    words = [t.word for t in tokens]
    if words[:1] == ["copy"] and "stdin" in words:
        raise Place(source, tokens[0].start, first_words(tokens)).bad(
            "apply takes definitions, not rows", hint="load rows with pgherd load; dump with pg_dump --schema-only"
        )
    for n, t in enumerate(tokens):
        if t.kind == "ASCII_92":
            name = "\\" + (tokens[n + 1].text if n + 1 < len(tokens) else "")
            raise Place(source, t.start, name).bad("a psql command in a schema file", hint=_META_HINT)


def _split(tokens: list[Token]) -> Iterator[list[Token]]:
    """Statements end at a semicolon that is in no parentheses and in no SQL-standard function body."""
    now: list[Token] = []
    depth = body = 0
    for t in tokens:
        if t.kind == "ASCII_59" and depth <= 0 and not body:
            if now:
                yield now
            now, depth = [], 0
            continue
        depth += (t.kind == "ASCII_40") - (t.kind == "ASCII_41")
        routine = any(n.word in ("function", "procedure") for n in now[1:4])
        if now and now[0].word == "create" and routine:
            if (t.word == "atomic" and now[-1].word == "begin") or (body and t.word == "case"):
                body += 1
            elif body and t.word == "end":
                body -= 1
        now.append(t)
    if now:
        yield now


def first_words(tokens: list[Token]) -> str:
    """The first few words of a statement, for messages; stops before anything that isn't a word or a name."""
    shown = ""
    for t in tokens[:8]:
        named = t.word or t.kind in ("IDENT", "UIDENT")
        if not named and t.text != ".":
            break
        if len(shown.split()) >= 4 and t.text != "." and not shown.endswith("."):
            break
        shown += t.text if t.text == "." or shown.endswith(".") or not shown else " " + t.text
    return shown


class _Translation:
    """One statement on its way: its tokens, and the text that blanks are written into."""

    def __init__(self, source: Source, tokens: list[Token]) -> None:
        self.source, self.tokens = source, tokens
        self.start = tokens[0].start
        self.chars = list(source.text[self.start : tokens[-1].end])
        self.words = first_words(tokens)
        self.hashed: tuple[str, ...] | None = None
        self.tablets: int | None = None
        self.tablets_at = 0
        self.placement = False

    def run(self) -> Statement:
        words = [t.word for t in self.tokens]
        if words[0] == "create" and "tablespace" in words[1:2]:
            self._tablespace()
        elif words[0] == "create" and ("table" in words[1:5] or "index" in words[1:5]):
            self._tablets()
            if "table" in words[1:5]:
                self._keys()
            else:
                self._index_groups()
                if (after := words.index("index") + 1) < len(words) and words[after] == "nonconcurrently":
                    self._write(self.tokens[after].start, self.tokens[after].end)
        elif words[:2] == ["alter", "table"]:
            self._keys()
        return Statement(
            self.source,
            self.start,
            "".join(self.chars),
            self.words,
            self.tablets,
            self.tablets_at,
            self.hashed,
            self.placement,
        )

    def _place(self, token: Token) -> Place:
        return Place(self.source, token.start, self.words)

    def _write(self, start: int, end: int, text: str = "") -> None:
        """Overwrite [start, end) with ``text`` and blanks; line ends stay."""
        for n in range(start, end):
            at = n - self.start
            if text and n - start < len(text):
                self.chars[at] = text[n - start]
            elif self.chars[at] not in "\r\n":
                self.chars[at] = " "

    def _tablespace(self) -> None:
        """``CREATE TABLESPACE x [OWNER y] WITH (…)`` -> ``ALTER TABLESPACE x SET (…)``."""
        top = self._top_level()
        with_ = next((t for t in top if t.word == "with"), None)
        if with_ is None or any(t.word == "location" for t in top[3:]):
            return
        owner = next((n for n, t in enumerate(top) if t.word == "owner" and n > 2), None)
        if owner is not None and owner + 1 < len(top):
            self._write(top[owner].start, top[owner + 1].end)
        self._write(self.tokens[0].start, self.tokens[0].end, "ALTER")
        self._write(with_.start, with_.end, "SET")
        self.placement = True

    def _top_level(self) -> list[Token]:
        depth, found = 0, []
        for t in self.tokens:
            depth -= t.kind == "ASCII_41"
            if depth == 0 and t.kind not in ("ASCII_40", "ASCII_41"):
                found.append(t)
            depth += t.kind == "ASCII_40"
        return found

    def _tablets(self) -> None:
        top = self._top_level()
        for n, t in enumerate(top[:-1]):
            following = [x.word for x in top[n + 1 : n + 4]]
            if t.word != "split":
                continue
            if following[:1] == ["at"]:
                raise self._place(t).bad(
                    "SPLIT AT VALUES sets the bounds of range tablets, which pgherd doesn't have",
                    hint="write SPLIT INTO n TABLETS, or PARTITION BY LIST with a partition for each set of values",
                )
            if following[:1] == ["into"] and following[2:] == ["tablets"] and top[n + 2].text.isdecimal():
                self.tablets, self.tablets_at = int(top[n + 2].text), t.start - self.start
                if not 1 <= self.tablets <= MAX_SHARDS:
                    raise self._place(t).bad(
                        f"SPLIT INTO {self.tablets} TABLETS", hint=f"write a number from 1 to {MAX_SHARDS}"
                    )
                self._write(t.start, top[n + 3].end)

    def _keys(self) -> None:
        """HASH, ASC and DESC out of ``PRIMARY KEY (…)`` and ``UNIQUE (…)``, and after a column's ``PRIMARY KEY``."""
        tokens = self.tokens
        for n, t in enumerate(tokens):
            after = n + 2 if t.word == "primary" else n + 1
            if t.word == "primary" and (n + 1 == len(tokens) or tokens[n + 1].word != "key"):
                continue
            if t.word not in ("primary", "unique") or after >= len(tokens):
                continue
            if tokens[after].kind == "ASCII_40":
                hashed = self._key_columns(after)
            elif tokens[after].word in _SORTING:
                hashed = () if tokens[after].word == "hash" else None
                self._write(tokens[after].start, tokens[after].end)
            else:
                continue
            if t.word == "primary":
                self.hashed = hashed

    def _index_groups(self) -> None:
        """``CREATE INDEX … ((a, b) HASH, c)``: the group's parentheses and HASH; a lone column's HASH parses."""
        depth, opening = 0, 0
        for n, t in enumerate(self.tokens[:-1]):
            if t.kind == "ASCII_40":
                depth, opening = depth + 1, n
            elif t.kind == "ASCII_41":
                inside = self.tokens[opening + 1 : n]
                columns = all(i.kind == "ASCII_44" or i.kind == "IDENT" or i.word for i in inside)
                group = depth == 2 and self.tokens[opening - 1].kind in ("ASCII_40", "ASCII_44")
                if group and columns and self.tokens[n + 1].word == "hash":
                    for taken in (self.tokens[opening], t, self.tokens[n + 1]):
                        self._write(taken.start, taken.end)
                depth -= 1

    def _key_columns(self, opening: int) -> tuple[str, ...] | None:
        """Blank the options of a key's columns, and the inner parentheses of ``((a, b) HASH, c)``; what is hashed."""
        hashed: list[str] = []
        group: list[Token] = []
        inner: Token | None = None
        before = self.tokens[opening]
        for t, following in pairwise([*self.tokens[opening + 1 :], self.tokens[-1]]):
            option = before.kind not in ("ASCII_40", "ASCII_44")  # else a word is a column's name
            if t.kind == "ASCII_40":
                inner = t
            elif t.kind == "ASCII_41":
                if inner is None:
                    break
                if following.word == "hash":
                    self._write(inner.start, inner.end)
                    self._write(t.start, t.end)
                inner = None
            elif t.kind == "ASCII_44":
                group = group if inner else []
            elif option and t.word in _KEY_OPTIONS:
                hashed += [g.ident for g in group] if t.word == "hash" else []
                self._write(t.start, t.end)
            else:
                group.append(t)
            before = t
        return tuple(hashed) or None
