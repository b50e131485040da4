"""The documents name everything that exists, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pgherd import errors
from pgherd.cli.main import app

ROOT = Path(__file__).parents[2]
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
ERRORS = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")


def commands() -> Iterator[tuple[str, Any]]:
    yield from nested(typer.main.get_command(app), "")


def nested(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from nested(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_command_and_option_is_documented(name: str, command: Any) -> None:
    line = next((x for x in COMMANDS.splitlines() if x.startswith(f"| `pgherd {name}")), "")
    assert line, f"docs/commands.md has no line for {name}"
    shared = {"--home", "--json", "--dsn", "--help"}
    for parameter in command.params:
        names = {o for o in [*parameter.opts, *parameter.secondary_opts] if o.startswith("-")} - shared
        assert not names or any(n in line for n in names), f"{name} {parameter.opts} is not documented"


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_command_has_the_shared_options(name: str, command: Any) -> None:
    options = {o for p in command.params for o in p.opts}
    assert {"--json", "--home"} <= options
    assert command.help


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_shows_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    app([*name.split(), "--help"], standalone_mode=False)
    assert "--json" in capsys.readouterr().out


def test_no_command_is_documented_that_does_not_exist() -> None:
    documented = set(re.findall(r"^\| `pgherd ([a-z]+(?: [a-z]+)?)", COMMANDS, re.MULTILINE))
    assert documented == {name for name, _ in commands()}


def test_every_setting_is_documented() -> None:
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "src").rglob("*.py"))
    used = set(re.findall(r"PGHERD_[A-Z_]+[A-Z]", source))
    assert used == set(re.findall(r"^\| `(PGHERD_[A-Z_]+)`", COMMANDS, re.MULTILINE))


def error_classes() -> list[type[errors.HerdError]]:
    found = [getattr(errors, name) for name in errors.__all__]
    return [c for c in found if isinstance(c, type) and issubclass(c, errors.HerdError)]


def test_error_codes_are_unique_and_documented() -> None:
    codes = {c.code: c for c in error_classes()}
    assert len(codes) == len(error_classes())
    documented = dict(re.findall(r"^\| `(\w+)` \| (\d)", ERRORS, re.MULTILINE))
    assert documented == {code: str(int(c.exit_status)) for code, c in codes.items()}


def test_all_error_classes_are_public() -> None:
    defined = {n for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, errors.HerdError)}
    assert defined <= set(errors.__all__)


def test_each_invariant_names_a_test_that_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) >= 11
    for path, test in named:
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path} has no {test}"


def test_every_package_has_its_line_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for path in (ROOT / "src" / "pgherd").iterdir():
        if path.is_dir() and (path / "__init__.py").exists():
            assert re.search(rf"^ +{path.name}/ ", text, re.MULTILINE), f"ARCHITECTURE.md does not mention {path.name}/"
