"""Administration of the lake's bucket."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cohortflow.errors import ConnectionNotFoundError, LakeError, StoreUnavailableError
from cohortflow.lake.store import LAKE_CONNECTION, open_store

if TYPE_CHECKING:
    from cohortflow.model import Deployment

__all__ = ["prepare_lake"]


def prepare_lake(uri: str, deployment: Deployment) -> None:
    """Create the bucket of a lake where it is missing and check that the endpoint commits atomically.

    Delta's commits rest on a conditional PUT (``If-None-Match: *``). An endpoint that ignores the
    condition would let two writers overwrite each other's commit, so it is refused here.

    Raises:
        StoreUnavailableError: The endpoint cannot be reached or refuses the credentials.
        LakeError: The endpoint ignores conditional writes.
    """
    parts = urlsplit(uri)
    if parts.scheme in ("s3", "s3a"):
        _create_bucket(parts.netloc, deployment)
    store = open_store(uri, deployment)
    probe = f".probe-{uuid.uuid4().hex}"
    try:
        if not store.create(probe, b"1") or store.create(probe, b"2"):
            raise LakeError(
                "The object store ignores conditional writes (PUT with If-None-Match).",
                place=uri,
                remedy="Use an endpoint that honours them: AWS S3, SeaweedFS 4.48 or later, Ceph, MinIO.",
            )
    finally:
        store.remove(probe)


def _create_bucket(bucket: str, deployment: Deployment) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        connection = deployment.connection(LAKE_CONNECTION)
    except ConnectionNotFoundError:
        arguments = {}
    else:
        arguments = {
            "endpoint_url": connection.extra.get("endpoint_url"),
            "aws_access_key_id": connection.login or None,
            "aws_secret_access_key": connection.password or None,
            "region_name": connection.extra.get("region_name") or "us-east-1",
        }
    client = boto3.client(
        "s3", config=Config(connect_timeout=5, read_timeout=30, retries={"max_attempts": 3}), **arguments
    )
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:  # noqa: PLR2004  # the HTTP status
            raise _unavailable(bucket, error) from None
    except BotoCoreError as error:
        raise _unavailable(bucket, error) from None
    else:
        return
    try:
        client.create_bucket(Bucket=bucket)
    except (ClientError, BotoCoreError) as error:
        raise _unavailable(bucket, error) from None


def _unavailable(bucket: str, error: Exception) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"The bucket cannot be reached or created ({type(error).__name__}).",
        place=f"s3://{bucket}",
        remedy=f"Check endpoint and credentials of the connection '{LAKE_CONNECTION}'.",
    )
