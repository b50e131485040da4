"""A bucket of an object store that speaks S3's protocol, through botocore.

Who one is and where the store is, is said as AWS's own programs are told: in the environment (``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL_S3``, ``AWS_CA_BUNDLE`` …), or in a profile of ``~/.aws/config`` and
``~/.aws/credentials`` (``AWS_CONFIG_FILE``, ``AWS_SHARED_CREDENTIALS_FILE``), by the machine's role else.
Source: AWS SDKs and Tools Reference Guide, "Settings reference".
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..errors import BackupFailed, BadInput
from .place import SCHEME

_URL = re.compile(r"(?:([^@/]+)@)?([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?\Z", re.DOTALL)
_PREFIX = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*\Z")
_FROM_MACHINE = ("iam-role",)
_HINT = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile of ~/.aws/config: s3://PROFILE@BUCKET"


@dataclass(frozen=True, slots=True)
class Access:
    """How programs reach a store; ``key`` is None where the machine's role is used, ``token`` where a key is for good.

    Endpoints have a scheme.
    """

    endpoint: str
    region: str
    ca_bundle: str | None
    key: str | None
    secret: str | None
    token: str | None

    def __repr__(self) -> str:
        return f"Access({self.endpoint!r}, {self.region!r})"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, what names in it begin with, and the AWS profile to use (None: AWS's default)."""

    name: str
    prefix: str = ""
    profile: str | None = None

    @classmethod
    def parse(cls, text: str) -> Bucket:
        """Read ``s3://[PROFILE@]BUCKET[/PREFIX]``. Raises BadInput."""
        found = _URL.match(text.removeprefix(SCHEME))
        prefix = (found[3] or "").rstrip("/") if found else ""
        if found is None or (prefix and not _PREFIX.match(prefix)) or ".." in prefix.split("/"):
            shown = re.sub(r"//[^/]*@", "//…@", text)  # somebody may have put a key there
            raise BadInput(f"{shown!r} names no bucket", hint="write s3://BUCKET, or s3://PROFILE@BUCKET/PREFIX")
        return cls(found[2], prefix, found[1])

    def __str__(self) -> str:
        return (
            f"{SCHEME}{f'{self.profile}@' if self.profile else ''}{self.name}{f'/{self.prefix}' if self.prefix else ''}"
        )

    @property
    def site(self) -> str:
        return f"{self._client().meta.endpoint_url}/{self.name}"

    @property
    def url(self) -> str:
        """Without the profile, as other programs take it."""
        return f"{SCHEME}{self.name}{f'/{self.prefix}' if self.prefix else ''}"

    def key(self, name: str) -> str:
        """The whole name of an object."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def names(self, directory: str) -> list[str]:
        return sorted(k.rpartition("/")[2] for k, _ in self.objects(f"{directory}/", "/"))

    def read(self, name: str) -> str | None:
        with self._asking("reading"):
            try:
                body = self._client().get_object(Bucket=self.name, Key=self.key(name))["Body"].read()
            except self._client().exceptions.NoSuchKey:
                return None
        return str(body.decode("utf-8", "replace"))

    def write(self, name: str, text: str) -> None:
        with self._asking("writing"):
            self._client().put_object(Bucket=self.name, Key=self.key(name), Body=text.encode())

    def remove(self, name: str) -> None:
        self.remove_all([self.key(name)])

    def objects(self, begin: str, delimiter: str = "") -> list[tuple[str, int]]:
        """The objects whose name, without the prefix, begins so: their whole names and bytes."""
        with self._asking("reading"):
            pages = self._client().get_paginator("list_objects_v2")
            listed = pages.paginate(Bucket=self.name, Prefix=self.key(begin), Delimiter=delimiter)
            return [(str(o["Key"]), int(o["Size"])) for page in listed for o in page.get("Contents", ())]

    def unpacks(self, name: str) -> bool:
        """Whether a compressed (gzip) object is whole: all of it is read, and compared with its checksum."""
        with self._asking("reading"):
            body = self._client().get_object(Bucket=self.name, Key=self.key(name))["Body"]
            reader = zlib.decompressobj(wbits=31)
            try:
                for chunk in body.iter_chunks(1 << 20):
                    while chunk:
                        reader.decompress(chunk, 1 << 24)
                        chunk = reader.unconsumed_tail
            except zlib.error:
                return False
        return reader.eof

    def remove_directory(self, directory: str) -> None:
        """Remove all objects in a directory."""
        self.remove_all([key for key, _ in self.objects(f"{directory}/")])

    def remove_all(self, keys: Sequence[str]) -> None:
        """Remove objects by their whole names; what is not there is no failure."""
        with self._asking("removing"):
            for key in keys:
                self._client().delete_object(Bucket=self.name, Key=key)

    def where(self) -> str | None:
        """The AWS region that the bucket is in; None if the store doesn't say. Raises BadInput if servers can't use it.

        They go on archiving when we are gone, so credentials that end are refused.
        """
        if self.access().token:
            raise BadInput(
                f"the credentials for {self} are for a time only: archiving would end with them",
                hint="use a key of a user of its own for backups, or the machine's role",
            )
        with self._asking("looking for the bucket"):
            answer = self._client().head_bucket(Bucket=self.name)
        return answer.get("BucketRegion") or None

    def access(self) -> Access:
        """How other programs reach it. Raises BadInput without credentials."""
        client = self._client()
        with self._asking("looking for credentials"):
            session = _session(self.profile)
            found = session.get_credentials()
            frozen = found.get_frozen_credentials() if found else None
        if found is None or frozen is None:
            raise BadInput(f"there are no credentials for {self}", hint=_HINT)
        bundle = session.get_config_variable("ca_bundle")
        reach = (client.meta.endpoint_url, client.meta.region_name, bundle)
        if found.method in _FROM_MACHINE:
            return Access(*reach, None, None, None)
        return Access(*reach, frozen.access_key, frozen.secret_key, frozen.token)

    def _client(self) -> Any:
        with self._asking("reading the AWS configuration"):
            return _client(self.profile)

    @contextmanager
    def _asking(self, doing: str) -> Iterator[None]:
        """Say of each failure what was wrong, where, and what to do."""
        exceptions = _botocore().exceptions
        try:
            yield
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            raise BadInput(f"there are no credentials for {self}", hint=_HINT) from error
        except (exceptions.ProfileNotFound, exceptions.ConfigParseError, exceptions.InvalidConfigError) as error:
            raise BadInput(f"{self}: {error}", hint="see ~/.aws/config, or AWS_CONFIG_FILE") from error
        except exceptions.ClientError as error:
            raise self._refused(error, doing) from error
        except exceptions.SSLError as error:
            raise BackupFailed(
                f"{self} can't be reached ({doing}): {error}",
                hint="name the CA that its certificate is from: AWS_CA_BUNDLE, or ca_bundle in the profile",
            ) from error
        except (exceptions.BotoCoreError, OSError, ValueError) as error:
            raise BackupFailed(
                f"{self} can't be reached ({doing}): {error}",
                hint="is the store up, and is its address right (AWS_ENDPOINT_URL_S3, endpoint_url in ~/.aws/config)?",
            ) from error

    def _refused(self, error: Any, doing: str) -> BackupFailed | BadInput:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in ("NoSuchBucket", "404") or status == 404:
            return BadInput(f"{self}: there is no bucket {self.name}", hint="make it, in the region it is for")
        if status in (401, 403):
            return BadInput(
                f"{self}: the store refuses these credentials ({doing}: {code})",
                hint="check the key, and that it may list the bucket, and read, write and delete in it",
            )
        if status in (301, 400) and code in ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "400"):
            return BadInput(
                f"{self}: the bucket is not in the AWS region that was named ({code})",
                hint="set AWS_REGION, or region in the profile",
            )
        return BackupFailed(f"{self}: {doing}: {error}", hint="see what the store says")


def _botocore() -> Any:
    try:
        import botocore.exceptions
    except ImportError as error:
        raise BadInput("backups to an object store need botocore", hint="pip install 'pgherd[s3]'") from error
    return botocore


def _session(profile: str | None) -> Any:
    return _opened(profile, _told())[0]


def _client(profile: str | None) -> Any:
    return _opened(profile, _told())[1]


def _told() -> frozenset[tuple[str, str]]:
    """What the environment says, which sessions read when they are made."""
    return frozenset((k, v) for k, v in os.environ.items() if k.startswith("AWS_"))


@lru_cache(maxsize=16)
def _opened(profile: str | None, _: frozenset[tuple[str, str]]) -> tuple[Any, Any]:
    from botocore.config import Config
    from botocore.session import Session

    patience = Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 3, "mode": "standard"})
    session = Session(profile=profile)
    # S3 itself has a region of its own choice; other stores don't care which is named.
    region = session.get_config_variable("region") or "us-east-1"
    return session, session.create_client("s3", region_name=region, config=patience)
