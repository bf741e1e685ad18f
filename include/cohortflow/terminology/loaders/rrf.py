"""Columns of the files in Rich Release Format that RxNorm and the UMLS Metathesaurus have in common.

Sources: UMLS Reference Manual, chapter 3 (https://www.ncbi.nlm.nih.gov/books/NBK9685/), and RxNorm Technical
Documentation, section 12. Names are the Metathesaurus' in lower case: RxNorm's ``RXCUI`` is ``cui``, its
``RXAUI`` ``aui``.
"""

from __future__ import annotations

__all__ = ["CONSO", "REL", "SAB"]

CONSO = (
    "cui",
    "lat",
    "ts",
    "lui",
    "stt",
    "sui",
    "ispref",
    "aui",
    "saui",
    "scui",
    "sdui",
    "sab",
    "tty",
    "code",
    "str",
    "srl",
    "suppress",
    "cvf",
)
"""``MRCONSO`` and ``RXNCONSO``: one row per atom, which is a name in a source."""

REL = (
    "cui1",
    "aui1",
    "stype1",
    "rel",
    "cui2",
    "aui2",
    "stype2",
    "rela",
    "rui",
    "srui",
    "sab",
    "sl",
    "rg",
    "dir",
    "suppress",
    "cvf",
)
"""``MRREL`` and ``RXNREL``; ``rel`` and ``rela`` say what the second is to the first."""

SAB = (
    "vcui",
    "rcui",
    "vsab",
    "rsab",
    "son",
    "sf",
    "sver",
    "vstart",
    "vend",
    "imeta",
    "rmeta",
    "slc",
    "scc",
    "srl",
    "tfr",
    "cfr",
    "cxty",
    "ttyl",
    "atnl",
    "lat",
    "cenc",
    "curver",
    "sabin",
    "ssn",
    "scit",
)
"""``MRSAB`` and ``RXNSAB``: one row per version of a source."""
