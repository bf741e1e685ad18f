"""The outermost layer: notes every request, and acts out the faults that hit it."""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cohortflow.sandbox.faults import Fault, fault_response
from cohortflow.sandbox.hospital import FAULT_KEY, Hospital
from cohortflow.sandbox.instants import format_instant, now
from cohortflow.sandbox.request_log import RequestRecord, classify

__all__ = ["FrontDoor"]


class _ConnectionCutError(Exception):
    """Ends the handler of a truncated response."""


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
        came, started, status = now(), time.perf_counter(), 0

        async def note_status(message: Message) -> None:
            nonlocal status
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]

        fault = self._hospital.faults.take(path_class, scope["method"])
        try:
            await self._answer(fault, scope, receive, note_status)
        except _ConnectionCutError:
            status = 0  # returning with the body incomplete makes the server close the connection
        except Exception:
            status = 500
            raise
        finally:
            self._hospital.log.add(
                RequestRecord(
                    time=format_instant(came),
                    method=scope["method"],
                    path_class=path_class,
                    status=status,
                    milliseconds=round((time.perf_counter() - started) * 1000, 1),
                    authorized="authorization" in Headers(scope=scope),
                )
            )

    async def _answer(self, fault: Fault | None, scope: Scope, receive: Receive, send: Send) -> None:
        if fault is None:
            await self._app(scope, receive, send)
            return
        if fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
        response = fault_response(fault)
        if response is not None:
            await response(scope, receive, send)
            return
        scope[FAULT_KEY] = fault
        await self._app(scope, receive, _cutting(send, fault) if fault.kind == "truncate" else send)


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
