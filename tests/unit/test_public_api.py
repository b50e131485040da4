import inspect
import typing

import pytest

import pgherd
from pgherd import errors
from pgherd.errors import ExitStatus, HerdError


def every_error() -> list[type[HerdError]]:
    found: list[type[HerdError]] = [HerdError]
    for kind in found:
        found.extend(k for k in kind.__subclasses__() if k not in found)
    return found


def public_members() -> list[tuple[str, object]]:
    found = []
    for name in pgherd.__all__:
        thing = getattr(pgherd, name)
        found.append((name, thing))
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    found.append((f"{name}.{member}", value))
    return found


def test_the_public_names_are_these() -> None:
    assert pgherd.__all__ == [
        "Answer",
        "Answers",
        "AsyncHerd",
        "AsyncTable",
        "Embedder",
        "GroupTiming",
        "Herd",
        "HerdError",
        "HerdTable",
        "Hit",
        "Hits",
        "Page",
        "connect",
        "connect_async",
    ]
    assert all(hasattr(pgherd, name) for name in pgherd.__all__)


@pytest.mark.parametrize(("name", "thing"), public_members(), ids=lambda v: v if isinstance(v, str) else "")
def test_everything_public_says_what_it_is(name: str, thing: object) -> None:
    doc = inspect.getdoc(thing)
    assert doc, name
    assert doc.splitlines()[0].rstrip().endswith((".", ":", ";")) or len(doc.splitlines()) > 1, doc


@pytest.mark.parametrize("name", ["Herd", "HerdTable"])
def test_the_client_with_asyncio_and_the_one_without_offer_the_same(name: str) -> None:
    here, there = getattr(pgherd, name), getattr(pgherd, {"Herd": "AsyncHerd", "HerdTable": "AsyncTable"}[name])
    for member, value in vars(here).items():
        if member.startswith("_") or not inspect.isfunction(value):
            continue
        mine, its = inspect.signature(value), inspect.signature(getattr(there, member))
        if member == "search":  # passes its options on
            assert list(mine.parameters)[:3] == list(its.parameters)[:3]
            continue
        assert [(p.name, p.kind, p.default) for p in mine.parameters.values()] == [
            (p.name, p.kind, p.default) for p in its.parameters.values()
        ], member


def test_every_error_has_a_code_of_its_own_and_says_what_to_do() -> None:
    kinds = [k for k in every_error() if k.__module__ == "pgherd.errors"]
    codes = [k.code for k in kinds]
    assert len(codes) == len(set(codes)), codes
    assert {k.__name__ for k in kinds} | {"ExitStatus"} == set(errors.__all__)
    for kind in kinds:
        doc = inspect.getdoc(kind) or ""
        assert ":" in doc or kind is HerdError, f"{kind.__name__} does not say what to do"


def test_every_error_maps_to_an_exit_status() -> None:
    for kind in every_error():
        assert isinstance(kind.exit_status, ExitStatus)
        assert kind.exit_status is not ExitStatus.DONE
        assert isinstance(kind.retryable, bool)
        assert set(kind("what", hint="do").as_json()) == {"code", "message", "hint", "retryable"}


def test_annotations_of_the_public_api_can_be_read() -> None:
    for name in ("AsyncHerd", "AsyncTable", "Herd", "HerdTable"):
        for member, value in vars(getattr(pgherd, name)).items():
            if not member.startswith("_") and inspect.isfunction(value):
                assert "return" in typing.get_type_hints(value), f"{name}.{member}"
