"""How a plan's folder is filled: which extractor, for which request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cohortflow.connectors import (
    BulkExport,
    BulkExtractor,
    CrawlExtractor,
    CrawlRequest,
    HydratedExtractor,
    PatientSelection,
    choose_mode,
    increment,
)
from cohortflow.errors import ConfigurationError

if TYPE_CHECKING:
    from cohortflow.connectors import Extractor, FhirClient, Mode
    from cohortflow.workflow.export_plan import ExportLink, ExportPlan

__all__ = ["choose_plan_mode", "make_extractor"]


async def choose_plan_mode(plan: ExportPlan, client: FhirClient) -> Mode:
    """Return the mode that a study asks for or, with ``auto``, that fits the server.

    Raises:
        ConfigurationError: A Group cannot be searched for as a whole.
        SourceError: The server offers neither bulk export nor search, or failed.
    """
    request = plan.request
    mode = await choose_mode(client, plan.export, plan.mode, types=request.types, level=request.level)
    if mode == "search" and request.group_id:
        raise ConfigurationError(
            "A search of whole types knows no Group: it would bring everybody.",
            place=plan.source.host,
            remedy="Set the mode 'crawl', or the level 'system'.",
        )
    return mode


def make_extractor(plan: ExportPlan, link: ExportLink, mode: Mode, client: FhirClient) -> Extractor:
    """Return what fills a plan's folder.

    Args:
        plan: What is asked for, but for ``since``.
        link: What it builds on.
        mode: The way to take.
        client: The server.

    Raises:
        InputError: ``link.since`` is no FHIR instant.
    """
    extractor: Extractor
    if mode == "bulk":
        extractor = BulkExtractor(BulkExport(client), link.complete(plan.request), plan.export)
    else:
        request = _crawl_request(plan, link, per_patient=mode == "crawl")
        extractor = CrawlExtractor(client, request, plan.export)
    if plan.hydration is None:
        return extractor
    return HydratedExtractor(extractor, client, plan.export, plan.hydration)


def _crawl_request(plan: ExportPlan, link: ExportLink, *, per_patient: bool) -> CrawlRequest:
    group = plan.request.group_id
    patients = None
    if per_patient:
        patients = PatientSelection(group_id=group) if group else PatientSelection(search=())
    request = CrawlRequest(plan.request.types, patients, filters=plan.request.type_filters)
    return increment(request, link.since) if link.since else request
