"""HTTP with what every hospital wants of it: authorization, pace, retries, redirects, OperationOutcomes."""

from cohortflow.connectors.transport.client import FhirClient, connect
from cohortflow.connectors.transport.retry import Clock, RetryPolicy, SystemClock

__all__ = [
    "Clock",
    "FhirClient",
    "RetryPolicy",
    "SystemClock",
    "connect",
]
