"""The outermost layer: notes every request, and acts out the faults that hit it."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cohortflow.sandbox.faults import Fault, fault_response
from cohortflow.sandbox.hospital import FAULT_KEY, Hospital
from cohortflow.sandbox.instants import format_instant, now
from cohortflow.sandbox.outcome import RefusalError
from cohortflow.sandbox.request_log import PathClass, RequestLog, RequestRecord, classify, template

__all__ = ["FrontDoor"]

_TRICKLE_BYTES = 4096


class _ConnectionCutError(Exception):
    """Ends the handler of a truncated response."""


class _Visit:
    """One request on its way through, noted once."""

    def __init__(self, scope: Scope, path_class: PathClass) -> None:
        self.status = 0
        self._scope = scope
        self._path_class = path_class
        self._came = now()
        self._started = time.perf_counter()
        self._noted = False

    def note(self, log: RequestLog) -> None:
        if self._noted:
            return
        self._noted = True
        headers = Headers(scope=self._scope)
        log.add(
            RequestRecord(
                time=format_instant(self._came),
                method=self._scope["method"],
                path_class=self._path_class,
                status=self.status,
                milliseconds=round((time.perf_counter() - self._started) * 1000, 1),
                authorized="authorization" in headers,
                path=template(self._scope["path"]),
                ranged="range" in headers,
            )
        )


class FrontDoor:
    """ASGI middleware.

    Args:
        app: The server proper.
        hospital: Holds the faults and the log.
    """

    def __init__(self, app: ASGIApp, hospital: Hospital) -> None:
        self._app = app
        self._hospital = hospital

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        path_class = classify(scope["path"]) if scope["type"] == "http" else "control"
        if path_class == "control":
            await self._app(scope, receive, send)
            return
        if self._wrong_door(path_class, scope):
            path_class = "other"
            scope = {**scope, "path": "/", "raw_path": b"/"}
        visit = _Visit(scope, path_class)

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                await send(self._dated(message))
                return
            if not message.get("more_body", False):
                visit.note(self._hospital.log)  # before the client has the answer, so that it finds itself
            await send(message)

        try:
            await self._admit(path_class, scope, receive, send_and_note)
        except _ConnectionCutError:
            visit.status = 0  # returning with the body incomplete makes the server close the connection
        except Exception:
            visit.status = 500
            raise
        finally:
            visit.note(self._hospital.log)

    async def _admit(self, path_class: PathClass, scope: Scope, receive: Receive, send: Send) -> None:
        if self._hospital.limit.allows(path_class):
            fault = self._hospital.faults.take(path_class, scope["method"])
            await self._answer(fault, scope, receive, send)
            return
        refusal = RefusalError(429, "throttled", "too many requests", {"Retry-After": "1"})
        await refusal.response(self._hospital.persona.issue_system)(scope, receive, send)

    def _dated(self, message: Message) -> Message:
        # The server adds a Date of its own unless its clock is to differ.
        offset = self._hospital.config.clock_offset
        if not offset:
            return message
        date = formatdate(time.time() + offset, usegmt=True).encode()
        return {**message, "headers": [*message["headers"], (b"date", date)]}

    def _wrong_door(self, path_class: PathClass, scope: Scope) -> bool:
        # Storage answers on its own port and nowhere else, and nothing else answers there.
        port = self._hospital.storage_port
        server = scope.get("server")
        return port is not None and server is not None and (server[1] == port) != (path_class == "storage")

    async def _answer(self, fault: Fault | None, scope: Scope, receive: Receive, send: Send) -> None:
        if fault is None:
            await self._app(scope, receive, send)
            return
        if fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
        response = fault_response(fault, self._hospital.persona.issue_system)
        if response is not None:
            await response(scope, receive, send)
            return
        scope[FAULT_KEY] = fault
        if fault.kind == "truncate":
            send = _cutting(send, fault)
        elif fault.kind == "trickle":
            send = _trickling(send, fault)
        await self._app(scope, receive, send)


def _trickling(send: Send, fault: Fault) -> Send:
    async def trickle(message: Message) -> None:
        if message["type"] != "http.response.body":
            await send(message)
            return
        body: bytes = message.get("body", b"")
        for first in range(0, len(body), _TRICKLE_BYTES):
            await asyncio.sleep(fault.seconds)
            piece = body[first : first + _TRICKLE_BYTES]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": message.get("more_body", False)})

    return trickle


def _cutting(send: Send, fault: Fault) -> Send:
    left = fault.at_bytes

    async def cut(message: Message) -> None:
        nonlocal left
        if message["type"] == "http.response.start":
            length = Headers(raw=message["headers"]).get("content-length")
            if left is None and length is not None:
                left = int(length) // 2
            await send(message)
            return
        body: bytes = message.get("body", b"")
        if left is None:  # a body of unknown length: half of its first block
            left = len(body) // 2
        if len(body) <= left and message.get("more_body", False):
            left -= len(body)
            await send(message)
            return
        # The very last byte stays back in any case, so that the body is never complete.
        await send(
            {"type": "http.response.body", "body": body[: min(left, len(body) - 1)], "more_body": True}
        )
        raise _ConnectionCutError

    return cut
