"""Object storage by URI: a local folder or an S3 bucket, behind the same few verbs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, S3Store

from cohortflow.errors import (
    ArtifactNotFoundError,
    ConfigurationError,
    ConnectionNotFoundError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from obstore.store import S3Config

    from cohortflow.model import Connection, Deployment

__all__ = ["LAKE_CONNECTION", "Store", "open_store", "storage_errors"]

LAKE_CONNECTION = "cohortflow_lake"
"""Connection with the credentials of an ``s3://`` lake (``conn_type: aws``)."""

_PORTABLE_PATH = re.compile(r"[A-Za-z0-9/._+@~-]+")
_RETRY_TIMEOUT_SECONDS = 60
_REQUEST_TIMEOUT_SECONDS = 60
_MAX_RETRIES = 8
_PARALLEL_PARTS = 4


@dataclass(frozen=True, slots=True)
class Store:
    """Files below one URI.

    Attributes:
        uri: ``s3://bucket/prefix`` or an absolute local path, without a trailing slash.
        options: Credentials and endpoint by object-store's names; empty for a folder.
    """

    uri: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    _backend: LocalStore | S3Store = field(kw_only=True, repr=False)

    def child(self, *parts: str) -> str:
        """Return the full URI of a path below this store, for Polars and Delta."""
        return "/".join((self.uri, *parts))

    @property
    def polars_options(self) -> dict[str, str | int] | None:
        """Return ``storage_options`` for Polars; ``None`` for a folder."""
        if not self.options:
            return None
        return {
            **self.options,
            "max_retries": _MAX_RETRIES,
            "retry_timeout_ms": _RETRY_TIMEOUT_SECONDS * 1000,
            # Polars waits without end for an answer, where the other clients have a limit.
            "timeout": f"{_REQUEST_TIMEOUT_SECONDS}s",
        }

    def read(self, path: str) -> bytes | None:
        """Return the whole content of a small file, or ``None`` where there is none."""
        with storage_errors(self.uri):
            try:
                return bytes(obstore.get(self._backend, path).bytes())
            except FileNotFoundError:
                return None

    def write(self, path: str, content: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """Write a small file; readers see the old or the new content, never a part.

        Args:
            path: Where.
            content: What.
            headers: What a bucket answers readers with, such as ``Content-Type``; a folder keeps none.
        """
        attributes = dict(headers) if headers and isinstance(self._backend, S3Store) else None
        with storage_errors(self.uri):
            obstore.put(self._backend, path, content, attributes=attributes, use_multipart=False)

    def create(self, path: str, content: bytes) -> bool:
        """Write a small file only where there is none; return whether it was written."""
        with storage_errors(self.uri):
            try:
                obstore.put(self._backend, path, content, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

    async def write_stream(self, path: str, chunks: AsyncIterator[bytes]) -> None:
        """Write a file of any size in bounded memory; it appears when complete, or not at all."""
        with storage_errors(self.uri):
            # Parts of 5 MiB wait in memory until they are sent: few, as several files are written at once.
            await obstore.put_async(
                self._backend, path, chunks, use_multipart=True, max_concurrency=_PARALLEL_PARTS
            )

    async def read_stream(self, path: str) -> AsyncGenerator[bytes, None]:
        """Yield the content of a file of any size in chunks.

        Raises:
            ArtifactNotFoundError: There is none.
        """
        with storage_errors(self.uri):
            answer = await obstore.get_async(self._backend, path)
            async for chunk in answer.stream():
                yield bytes(chunk)

    def size(self, path: str) -> int | None:
        """Return the bytes of a file, or ``None`` where there is none."""
        with storage_errors(self.uri):
            try:
                return int(obstore.head(self._backend, path)["size"])
            except FileNotFoundError:
                return None

    def list(self, prefix: str = "", *, older_than: timedelta = timedelta(0)) -> list[str]:
        """Return the paths of all files below a prefix that were last written so long ago, sorted."""
        latest = datetime.now(UTC) - older_than
        with storage_errors(self.uri):
            return sorted(
                str(meta["path"])
                for batch in obstore.list(self._backend, prefix or None)
                for meta in batch
                if not older_than or meta["last_modified"] < latest
            )

    def remove(self, path: str) -> None:
        """Delete one file, if it is there."""
        with storage_errors(self.uri), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._backend, path)

    def delete(self, prefix: str, *, keep: str = "", older_than: timedelta = timedelta(0)) -> int:
        """Delete the files below a prefix that were last written so long ago, but for one.

        Returns:
            The number of deleted files.
        """
        paths = [path for path in self.list(prefix, older_than=older_than) if path != keep]
        with storage_errors(self.uri):
            if paths:
                obstore.delete(self._backend, paths)
        if isinstance(self._backend, LocalStore):
            _remove_empty_folders(Path(self.uri) / prefix)
        return len(paths)


def open_store(uri: str, deployment: Deployment, *, private: bool = False) -> Store:
    """Open a lake or a folder in it.

    Args:
        uri: ``s3://bucket/prefix``, ``file:///path`` or a path.
        deployment: Where the connection ``cohortflow_lake`` is looked up for ``s3://``; without
            one the ``AWS_*`` environment and the machine's own role are used.
        private: Whether a folder that is made here is for its owner alone. One that exists keeps its mode.

    Raises:
        ConfigurationError: The scheme is not supported, or a folder's name is not.
    """
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file"):
        folder = Path(uri.removeprefix("file://")).expanduser().absolute()
        if not _PORTABLE_PATH.fullmatch(str(folder)):
            raise ConfigurationError(
                "The lake's path has a blank or special character, which readers of Delta trip over.",
                place=str(folder),
                remedy="Use a path of letters, digits and . _ - + @ ~ only.",
            )
        with storage_errors(str(folder)):
            folder.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
            return Store(str(folder), _backend=LocalStore(folder))
    if scheme not in ("s3", "s3a"):
        raise ConfigurationError(
            f"The lake's scheme '{scheme}' is not supported.",
            remedy="Use s3://bucket/prefix or a local path.",
        )
    try:
        connection = deployment.connection(LAKE_CONNECTION)
    except ConnectionNotFoundError:
        options = {}
    else:
        options = _s3_options(connection)
    uri = uri.rstrip("/").replace("s3a://", "s3://", 1)
    # obstore takes this one as an option of its HTTP client.
    config = cast("S3Config", {key: value for key, value in options.items() if key != "aws_allow_http"})
    backend = S3Store.from_url(
        uri,
        config=config,
        client_options={"allow_http": options.get("aws_allow_http") == "true"},
        retry_config={
            "max_retries": _MAX_RETRIES,
            "retry_timeout": timedelta(seconds=_RETRY_TIMEOUT_SECONDS),
        },
    )
    return Store(uri, options, _backend=backend)


def _s3_options(connection: Connection) -> dict[str, str]:
    """Translate an Airflow ``aws`` connection to object-store's configuration keys."""
    extra = connection.extra
    options = {"aws_region": str(extra.get("region_name") or "us-east-1")}
    if connection.login:
        options["aws_access_key_id"] = connection.login
        options["aws_secret_access_key"] = connection.password
    if token := extra.get("aws_session_token"):
        options["aws_session_token"] = str(token)
    if endpoint := extra.get("endpoint_url"):
        options["aws_endpoint_url"] = str(endpoint)
        options["aws_virtual_hosted_style_request"] = "false"
        if str(endpoint).startswith("http://"):
            options["aws_allow_http"] = "true"
    return options


@contextlib.contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Turn the errors of storage clients into ours; the originals may quote signed requests.

    Raises:
        ArtifactNotFoundError: A file is not there.
        StoreUnavailableError: The store refused the credentials or failed.
    """
    try:
        yield
    except FileNotFoundError:
        raise ArtifactNotFoundError(
            "A file is missing, or its bucket is.",
            place=uri,
            remedy="Run the whole study again: clear the run's first task with all downstream tasks.",
        ) from None
    except (PermissionDeniedError, UnauthenticatedError, PermissionError):
        raise StoreUnavailableError(
            "The object store refused the credentials.",
            place=uri,
            remedy=f"Check login and password of the connection '{LAKE_CONNECTION}' and the bucket's policy.",
        ) from None
    except (BaseError, OSError) as error:
        if "://" in uri:
            check = f"Check endpoint and credentials of '{LAKE_CONNECTION}' and that the bucket exists"
        else:
            check = f"Check that the folder '{LAKE_CONNECTION}' can be written and that its disk has room"
        raise StoreUnavailableError(
            f"The object store cannot be reached ({type(error).__name__}).",
            place=uri,
            remedy=f"{check}; nothing was published, the task can be run again.",
        ) from None


def _remove_empty_folders(folder: Path) -> None:
    if not folder.is_dir():
        return
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            with contextlib.suppress(OSError):
                path.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()
