"""Tokens, secret files and addresses: what is weak, missing or open to others is refused, and the refusal says why."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from pgherd.cli.main import main
from pgherd.errors import BadInput, UnsafeSetting
from pgherd.llm.reader import login_file, read_login, role_names
from pgherd.llm.token import is_token, read_token
from pgherd.mcp.http import check_address, is_loopback
from pgherd.secretfile import read_secret


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("kind", ["urlsafe 32", "hex 32", "urlsafe 24"])
def test_a_random_token_is_taken(tmp_path: Path, kind: str) -> None:
    form, size = kind.split()
    token = {"urlsafe": secrets.token_urlsafe, "hex": secrets.token_hex}[form](int(size))
    assert read_token(written(tmp_path / "t", token + "\n")) == token


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("", "empty"),
        ("short", "5 characters"),
        ("uoXUwQp4CftbwafuoS4ELoW-GXaMRHR", "31 characters"),
        ("a" * 40, "easily guessed"),
        ("ab" * 20, "easily guessed"),
        ("abcdefghijklmnopqrstuvwxyz0123456789", "easily guessed"),
        ("0f3d5c2b9a8e71460f3d5c2b9a8e7146" * 2, "easily guessed"),
        ("password-password-password-password!", "easily guessed"),
        ("correct horse battery staple and more", "blanks"),
        ("schlüssel" * 5, "outside ASCII"),
    ],
)
def test_a_weak_token_is_refused(tmp_path: Path, token: str, why: str) -> None:
    with pytest.raises(UnsafeSetting, match=why):
        read_token(written(tmp_path / "t", token))


def test_a_missing_or_open_token_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeSetting, match="needs a token"):
        read_token(None)
    with pytest.raises(UnsafeSetting, match="No such file"):
        read_token(tmp_path / "none")
    for mode in (0o644, 0o640, 0o604, 0o620, 0o666):
        with pytest.raises(UnsafeSetting, match=f"mode {mode:04o}"):
            read_token(written(tmp_path / "t", secrets.token_urlsafe(32), mode))
    with pytest.raises(UnsafeSetting, match="not a plain file"):
        read_token(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(UnsafeSetting, match="not a plain file"):
        read_secret(tmp_path / "pipe", "the token file")


def test_a_shown_token_is_compared_as_a_whole() -> None:
    token = secrets.token_urlsafe(32)
    assert is_token(token, token)
    assert not any(is_token(shown, token) for shown in ("", token[:-1], token + "x", token.swapcase(), "é" * 43))


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "", "127.0.0.1.example.org", "localhost."]
)
def test_an_address_that_others_reach_needs_tls(host: str) -> None:
    with pytest.raises(UnsafeSetting, match="without TLS"):
        check_address(host, None, None)


def test_this_machine_alone_needs_none(tmp_path: Path) -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"))
    check_address("127.0.0.1", None, None)
    check_address("0.0.0.0", tmp_path / "cert", written(tmp_path / "key", "x"))
    with pytest.raises(UnsafeSetting, match=r"the TLS key .* mode 0644"):
        check_address("0.0.0.0", tmp_path / "cert", written(tmp_path / "key", "x", 0o644))
    with pytest.raises(BadInput, match="both a certificate and its key"):
        check_address("0.0.0.0", tmp_path / "cert", None)


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--host", "0.0.0.0", "--token-file", "TOKEN"], 3, "without TLS"),
        ([], 3, "needs a token"),
        (["--token-file", "OPEN"], 3, "mode 0644"),
        (["--token-file", "WEAK"], 3, "4 characters"),
        (["--transport", "pigeon"], 2, "pigeon"),
        (["--token-file", "TOKEN"], 1, "there is no herd"),
    ],
)
def test_the_command_refuses(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], options: list[str], status: int, said: str
) -> None:
    good = secrets.token_urlsafe(32)
    files = {
        "TOKEN": str(written(tmp_path / "token", good)),
        "OPEN": str(written(tmp_path / "open", good, 0o644)),
        "WEAK": str(written(tmp_path / "weak", "weak")),
    }
    chosen = ["mcp", "--home", str(tmp_path), "--transport", "http", *(files.get(o, o) for o in options)]
    assert main(chosen) == status
    out, err = capfd.readouterr()
    assert said in " ".join((out + err).split())
    assert good not in out + err


def test_the_readers_passwords_are_read_from_a_file_of_our_own(tmp_path: Path) -> None:
    names = role_names("us-east", "herd")
    lines = "".join(f"*:*:herd:{name}:password{i}\n" for i, name in enumerate(names))
    path = written(login_file(tmp_path, "us-east"), lines)
    assert read_login(tmp_path, "us-east", "herd").scribe == "password1"
    path.chmod(0o644)
    with pytest.raises(UnsafeSetting, match="mode 0644"):
        read_login(tmp_path, "us-east", "herd")
    path.chmod(0o600)
    with pytest.raises(UnsafeSetting, match="does not hold"):
        read_login(tmp_path, "us-east", "other")


def test_names_of_roles_fit_and_differ() -> None:
    long = "a-region-with-a-name-that-goes-on-and-on-for-ever-and-ever"
    names = [*role_names(long, "herd"), *role_names(long, "herd2"), *role_names("us", "herd")]
    assert len(set(names)) == len(names)
    assert all(len(n.encode()) <= 63 for n in names)
    assert login_file(Path("/home"), "../etc").parent == Path("/home")
