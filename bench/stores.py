"""Other stores, each in a process of its own, from an environment of its own: some need older versions of what we use.

``make bench`` makes that environment (``.venv-peers``); ``PGHERD_BENCH_PEERS_PYTHON`` names another. The processes run
``store_process.py``, which imports nothing of ours, and talk in lines of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .data import Corpus, Vectors
from .searchers import Answers

VARIABLE = "PGHERD_BENCH_PEERS_PYTHON"
LEFT_OUT = f"other stores and langchain-postgres: `make bench` installs them, or name their Python in {VARIABLE}"
_HERE = Path(__file__).parent


def interpreter() -> str | None:
    """The Python that has the stores, if there is one."""
    own = _HERE.parent / ".venv-peers" / "bin" / "python"
    return os.environ.get(VARIABLE) or (str(own) if (own.parent.parent / ".installed").exists() else None)


class Store:
    """One store with the first ``count`` rows of a corpus; a searcher, and what else its process is asked."""

    def __init__(self, python: str, name: str, data: Corpus, count: int | None = None, **more: Any) -> None:
        self.name = name
        self._directory = tempfile.TemporaryDirectory(prefix=f"pgherd-bench-{name}-")
        base, count = Path(self._directory.name), count or data.n
        np.save(base / "vectors.npy", data.vectors[:count])
        np.save(base / "ids.npy", data.ids[:count])
        texts = {"region": data.regions[:count], "code": data.codes[:count], "description": data.descriptions[:count]}
        (base / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
        self._log = (base / "log").open("w+")
        self._process = subprocess.Popen(
            [python, "-W", "ignore", str(_HERE / "store_process.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.built = self.ask({"do": "open", "store": name, "directory": str(base), **more})

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()
        self._directory.cleanup()

    def ask(self, questions: Any, effort: int | None = None) -> Any:
        """A command's answer; or, with ``effort``, the :class:`Answers` to questions (see Searcher)."""
        if effort is None:
            return self._command(questions)
        return self._search(questions, effort)

    def _search(self, questions: Vectors, effort: int) -> Answers:
        path = Path(self._directory.name) / "questions.npy"
        np.save(path, questions)
        found = self._command({"do": "search", "effort": effort, "questions": str(path)})
        return Answers(found["ms"], found["ids"], found["cpu_ms"])

    def _command(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            self._process.wait()
            self._log.seek(0)
            raise RuntimeError(f"{self.name} ended: {self._log.read()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer
