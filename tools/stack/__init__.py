"""Real servers on this machine's loopback, for the demo, the tests and ``make up``."""

from stack.processes import Process, ProcessGroup, call, find_free_port, wait_for_http
from stack.services import (
    BIN,
    PROJECT,
    AirflowHome,
    S3Server,
    Sandbox,
    keep_secret,
    start_loading,
    start_postgres,
    start_s3,
    start_sandbox,
)

__all__ = [
    "BIN",
    "PROJECT",
    "AirflowHome",
    "Process",
    "ProcessGroup",
    "S3Server",
    "Sandbox",
    "call",
    "find_free_port",
    "keep_secret",
    "start_loading",
    "start_postgres",
    "start_s3",
    "start_sandbox",
    "wait_for_http",
]
