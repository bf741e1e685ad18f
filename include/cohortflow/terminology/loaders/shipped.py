"""What Cohortflow brings along: complete ICD-10-CM, UCUM, FHIR's code systems, and a part of CVX.

ICD-10-CM's tabular list is in the package ``simple-icd-10-cm``, UCUM's essence in ``ucumvert``: their data
files are read, their code is not run. The other files are this package's own.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from cohortflow.errors import ConfigurationError, InputError
from cohortflow.terminology.loaders.fhir import load_fhir
from cohortflow.terminology.loaders.icd10cm import load_icd10cm
from cohortflow.terminology.loaders.ucum import load_ucum
from cohortflow.terminology.tables import Release

__all__ = ["load_shipped"]

_CONTENT = Path(__file__).resolve().parents[1] / "content"


def load_shipped(path: Path | None = None, *, version: str | None = None) -> tuple[Release, ...]:
    """Read the content that needs no licence to be bought or signed.

    Args:
        path: Not used: nothing is read but what is installed.
        version: Not used: each release has its own.

    Raises:
        InputError: A version is named.
        ConfigurationError: A package with content is not installed.
    """
    del path
    if version is not None:
        raise InputError("Shipped content has versions of its own.", remedy="Leave --version out.")
    return (
        load_icd10cm(_find_package("simple_icd_10_cm") / "data"),
        *load_ucum(_find_package("ucumvert") / "vendor" / "ucum-essence.xml"),
        *load_fhir(_CONTENT / "cvx.json"),
        *load_fhir(_CONTENT / "fhir-r4.json"),
    )


def _find_package(name: str) -> Path:
    """Return a package's folder without importing it."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            f"The package '{name}', whose data are shipped, is not installed.",
            remedy="Install Cohortflow with its requirements.",
        )
    return Path(spec.submodule_search_locations[0])
