"""What object storage answers: XML, and nothing of FHIR."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

__all__ = ["StorageRefusalError", "storage_error"]


def storage_error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as S3 words it.

    Args:
        status: HTTP status.
        code: Error code of S3, such as ``AccessDenied``.
        message: What is wrong.
        headers: Response headers.
    """
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )
    return Response(body, status_code=status, headers=headers, media_type="application/xml")


class StorageRefusalError(Exception):
    """Object storage refuses a request.

    Args:
        status: HTTP status.
        code: Error code of S3.
        message: What is wrong.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def response(self) -> Response:
        """The HTTP answer."""
        return storage_error(self.status, self.code, self.message)
