"""Bulk exports: built on disk in the background, kept for a while, then removed."""

from __future__ import annotations

import logging
import math
import secrets
import shutil
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any

from cohortflow.sandbox.config import SandboxConfig
from cohortflow.sandbox.export_build import ExportBuilder
from cohortflow.sandbox.export_job import Export
from cohortflow.sandbox.export_request import ExportRequest
from cohortflow.sandbox.outcome import RefusalError, operation_outcome
from cohortflow.sandbox.persona import Persona
from cohortflow.sandbox.resource_table import ResourceTable
from cohortflow.sandbox.retry_after import format_retry_after
from cohortflow.sandbox.store import ResourceStore

__all__ = ["ExportBoard", "too_recent"]

_LOGGER = logging.getLogger("cohortflow.sandbox")


class ExportBoard:
    """Starts, shows and removes exports.

    Args:
        store: The records.
        config: Pace and lifetime of exports.
        persona: Which exports are accepted.
        builder: Writes the files.
        folder: Where files go.
    """

    def __init__(
        self,
        store: ResourceStore,
        config: SandboxConfig,
        persona: Persona,
        builder: ExportBuilder,
        folder: Path,
    ) -> None:
        self._store = store
        self._config = config
        self._persona = persona
        self._builder = builder
        self._folder = folder
        self._kickoffs: dict[tuple[str, str], float] = {}
        self._scopes: set[tuple[object, ...]] = set()
        self._lock = threading.Lock()
        self._exports: dict[str, Export] = {}
        self._workers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sandbox-export")

    def start(
        self,
        request: ExportRequest,
        client_id: str,
        types: tuple[str, ...],
        outcomes: list[dict[str, Any]],
    ) -> Export:
        """Accept an export.

        Raises:
            RefusalError: 429, when the client has as many unfinished exports as it may (O3) or had
                this Group too recently (E4); 409, when it asks for the same again (O15); 404 or 400,
                when the Group or a patient is unknown.
        """
        self._builder.patients(request)
        with self._lock:
            self._sweep()
            self._check_running(client_id)
            self._check_window(request, client_id)
            self._check_repeat(request, client_id)
            export_id = uuid.uuid4().hex
            export = Export(
                id=export_id,
                client_id=client_id,
                request=request,
                types=types,
                transaction_time=self._store.now,
                folder=self._folder / export_id,
                outcomes=[*self._notices(request, types), *outcomes],
                links_signed=self._persona.link_seconds is not None,
            )
            self._exports[export_id] = export
            if request.group_id is not None:
                self._kickoffs[client_id, request.group_id] = time.monotonic()
        self._workers.submit(self._build, export, self._store.snapshot())
        return export

    def get(self, export_id: str, client_id: str | None) -> Export:
        """An export of a client; ``None`` stands for whoever knows its id.

        Raises:
            RefusalError: 404, when there is none, or it was deleted or has expired.
        """
        with self._lock:
            self._sweep()
            export = self._exports.get(export_id)
        if export is None or client_id not in {None, export.client_id}:
            raise RefusalError(
                404, "not-found", "there is no such export; it may have expired or been deleted"
            )
        return export

    def cancel(self, export: Export) -> None:
        """Stop an export and remove its files."""
        with self._lock:
            self._drop(export)

    def expire_all(self) -> None:
        """Let every export expire now."""
        with self._lock:
            for export in list(self._exports.values()):
                self._drop(export)

    def expire_links(self) -> None:
        """Let every file URL that a client knows expire now; a manifest fetched again has new ones (B9)."""
        with self._lock:
            for export in self._exports.values():
                export.links_signed = True
                export.links.clear()

    def forget_kickoffs(self) -> None:
        """Let every client export every Group again (E4, O15)."""
        with self._lock:
            self._kickoffs.clear()
            self._scopes.clear()

    def sign_links(self, export: Export) -> str:
        """The signature of the file URLs of one manifest; empty where they need none."""
        if not export.links_signed:
            return ""
        signature = secrets.token_urlsafe(8)
        seconds = self._persona.link_seconds
        export.links[signature] = math.inf if seconds is None else time.monotonic() + seconds
        return signature

    def available(self, export: Export) -> int:
        """How many files a client may have by now; before the end, only with partial manifests (B8)."""
        if self.is_complete(export):
            return len(export.files)
        if not export.request.partial_manifests:
            return 0
        share = min(export.polls / (self._config.export_polls + 1), self._elapsed(export))
        return int(len(export.files) * min(share, 1.0))

    def page(self, export: Export, number: int) -> tuple[int, int] | None:
        """First file, and file after the last, of a manifest; what was once shown stays so.

        Args:
            export: An export with partial manifests.
            number: Which manifest, from 0.

        Returns:
            ``None`` when there is nothing for it yet.
        """
        with self._lock:
            if number < len(export.pages):
                return export.pages[number]
            start = export.pages[-1][1] if export.pages else 0
            stop = min(start + self._persona.manifest_files, self.available(export))
            if number > len(export.pages) or (
                stop == start and not (number == 0 and self.is_complete(export))
            ):
                return None
            export.pages.append((start, stop))
            return start, stop

    def is_complete(self, export: Export) -> bool:
        """Whether the client may have the manifest."""
        return (
            export.finished is not None
            and export.polls > self._config.export_polls
            and time.monotonic() - export.started >= self._config.export_seconds
        )

    def progress(self, export: Export) -> float:
        """Share that is done, as the client is told."""
        return min(export.done, self._elapsed(export), 0.99)

    def remaining(self, export: Export) -> float:
        """Seconds until a finished export expires."""
        ready = max(export.finished or 0.0, export.started + self._config.export_seconds)
        return ready + self._config.export_lifetime - time.monotonic()

    def close(self) -> None:
        """Stop all work."""
        self.expire_all()
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _sweep(self) -> None:
        for export in list(self._exports.values()):
            if export.finished is not None and self.remaining(export) <= 0:
                self._drop(export)

    def _elapsed(self, export: Export) -> float:
        pace = self._config.export_seconds
        return (time.monotonic() - export.started) / pace if pace > 0 else 1.0

    def _check_running(self, client_id: str) -> None:
        running = sum(
            export.client_id == client_id and not self.is_complete(export) and not export.failed
            for export in self._exports.values()
        )
        most = self._persona.max_running_exports
        if most is not None and running >= most:
            raise RefusalError(
                429,
                "throttled",
                "another export of this client is not finished yet",
                {
                    "Retry-After": format_retry_after(
                        self._config.retry_after, self._config.retry_after_format
                    )
                },
            )

    def _check_window(self, request: ExportRequest, client_id: str) -> None:
        window, group_id = self._persona.kickoff_window, request.group_id
        last = None if group_id is None else self._kickoffs.get((client_id, group_id))
        if window is None or last is None:
            return
        left = last + window - time.monotonic()
        if left > 0:
            raise too_recent(
                self._persona.kickoff_window_status,
                left if self._persona.kickoff_window_retry_after else None,
            )

    def _check_repeat(self, request: ExportRequest, client_id: str) -> None:
        if not self._persona.refuses_repeats or request.since is None:
            return
        scope = (client_id, *request.scope)
        if scope in self._scopes:
            raise RefusalError(409, "duplicate", "an export with this _since and _type was asked for before")
        self._scopes.add(scope)

    def _notices(self, request: ExportRequest, types: tuple[str, ...]) -> list[dict[str, Any]]:
        persona = self._persona
        notices = []
        for name in request.ignored:
            issue = "59100" if name in persona.ignored_parameters | {"_typeFilter"} else "4122"
            notices.append(
                operation_outcome(
                    "warning",
                    "not-supported",
                    f"parameter '{name}' was ignored",
                    system=persona.issue_system,
                    issue=issue,
                )
            )
        notices.extend(
            operation_outcome(
                "warning",
                "suppressed",
                f"Client not authorized for {persona.missing_sub_apis[name]}",
                system=persona.issue_system,
                issue="59204",
            )
            for name in types
            if name in persona.missing_sub_apis  # E17
        )
        return notices

    def _drop(self, export: Export) -> None:
        export.cancelled = True
        self._exports.pop(export.id, None)
        shutil.rmtree(export.folder, ignore_errors=True)

    def _build(self, export: Export, tables: dict[str, ResourceTable]) -> None:
        try:
            self._builder.build(export, tables)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client has to be told
            export.failed = True
            if not export.cancelled:
                # The class only: a message might hold a piece of a record.
                _LOGGER.error("an export failed with %s", type(error).__name__)  # noqa: TRY400
        finally:
            if export.cancelled:
                shutil.rmtree(export.folder, ignore_errors=True)
            export.finished = time.monotonic()


def too_recent(status: int, seconds: float | None) -> RefusalError:
    """How Epic refuses a Group that the client exported not long ago (E4).

    Args:
        status: HTTP status.
        seconds: What ``Retry-After`` says; ``None`` for none.
    """
    return RefusalError(
        status,
        "throttled" if status == HTTPStatus.TOO_MANY_REQUESTS else "business-rule",
        "Error processing Bulk Data Kickoff request: Request not allowed: "
        "The Client requested this Group too recently.",
        None if seconds is None else {"Retry-After": str(math.ceil(seconds))},
    )
