"""Loaders: a distributor's files, as a `Release`.

A loader is the function ``load_<format>`` of the module ``loaders/<format>.py``; to add one, write the module
and its line in `LOADERS`. Modules are imported when their loader is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from cohortflow.terminology.tables import Release

__all__ = ["LOADERS", "Loader"]


@dataclass(frozen=True, slots=True)
class Loader:
    """One format.

    Attributes:
        format: Its name: that of the module, and on the command line.
        reads: What it reads, for people.
    """

    format: str
    reads: str

    def __call__(self, path: Path, *, version: str | None = None) -> tuple[Release, ...]:
        """Read a distributor's file or folder.

        Args:
            path: The file or folder.
            version: Name of the version, where the files do not tell it or tell another one.

        Returns:
            The releases in it. Their tables are lazy: a malformed line may show only when they are stored.

        Raises:
            InputError: The file is not there, or is not of this format.
            MalformedDataError: A line, column or element of it is malformed.
        """
        module = import_module(f"{__name__}.{self.format}")
        load = cast("Callable[..., Release | tuple[Release, ...]]", getattr(module, f"load_{self.format}"))
        found = load(path, version=version)
        return found if isinstance(found, tuple) else (found,)


LOADERS: Mapping[str, Loader] = MappingProxyType(
    {
        loader.format: loader
        for loader in (
            Loader("athena", "OMOP vocabularies of athena.ohdsi.org: the folder of the CSV files"),
            Loader("cvx", "CDC's vaccine codes: cvx.txt, with bars between the fields"),
            Loader("fhir", "CodeSystem, ValueSet, ConceptMap: JSON, a Bundle, an NPM package (.tgz)"),
            Loader("gems", "CMS' general equivalence mappings of ICD-9 and ICD-10: the folder or a file"),
            Loader("icd10cm", "ICD-10-CM's tabular list: the XML file, beside it a list of the valid codes"),
            Loader("icd10cm_order", "ICD-10-CM's order file: icd10cm_order_2026.txt, fixed width"),
            Loader("icd10pcs", "ICD-10-PCS' order file: icd10pcs_order_2026.txt, fixed width"),
            Loader("loinc", "LOINC: the folder of the release"),
            Loader("rf2", "SNOMED CT: the folder of an RF2 release, of which the snapshot is read"),
            Loader("rxnorm", "RxNorm: the folder of the RRF files"),
            Loader("shipped", "What Cohortflow brings along: ICD-10-CM, UCUM, CVX, FHIR's code systems"),
            Loader("ucum", "UCUM's units: ucum-essence.xml"),
            Loader("umls", "UMLS Metathesaurus: the folder with MRCONSO.RRF and MRREL.RRF"),
        )
    }
)
"""Loaders by format."""
