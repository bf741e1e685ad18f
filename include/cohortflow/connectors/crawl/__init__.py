"""Extraction by search: per patient, or per type as a whole."""

from cohortflow.connectors.crawl.extractor import CrawlExtractor
from cohortflow.connectors.crawl.incremental import increment
from cohortflow.connectors.crawl.request import CrawlLimits, CrawlRequest, PatientSelection

__all__ = [
    "CrawlExtractor",
    "CrawlLimits",
    "CrawlRequest",
    "PatientSelection",
    "increment",
]
