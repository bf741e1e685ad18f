"""Takes identifiers out of texts: what is known of the persons in the raw zone, and what has a form.

The order of use: ``load_lexicon``, ``collect_identities`` of the facts that the leak gate reads too, a
``TextScrubber``, and a ``ColumnScrubber`` that is given to ``redact``. The leak gate looks for the same
things afterwards.
"""

from cohortflow.redaction.scrub.columns import ColumnScrubber, plan_dates, scrubs_texts
from cohortflow.redaction.scrub.identity import Identities, collect_identities
from cohortflow.redaction.scrub.lexicon import Lexicon, load_lexicon
from cohortflow.redaction.scrub.scrubber import TAGS, DateRule, Dates, ScrubCounts, TextScrubber

__all__ = [
    "TAGS",
    "ColumnScrubber",
    "DateRule",
    "Dates",
    "Identities",
    "Lexicon",
    "ScrubCounts",
    "TextScrubber",
    "collect_identities",
    "load_lexicon",
    "plan_dates",
    "scrubs_texts",
]
