"""The leak gate: searches what is about to be published for what identifies the source's persons.

The order of use: ``collect_facts`` of every file of the raw zone, a ``LeakScan`` of them, ``add_table`` and
``add_document`` for all that is to be published, ``finish``, ``check_leaks``.
"""

from cohortflow.redaction.leaks.collect import collect_facts, collect_table_facts
from cohortflow.redaction.leaks.facts import FACTS, FactKind
from cohortflow.redaction.leaks.report import Leak, LeakReport, check_leaks
from cohortflow.redaction.leaks.scan import LeakScan
from cohortflow.redaction.leaks.terms import TermRule, load_common_words

__all__ = [
    "FACTS",
    "FactKind",
    "Leak",
    "LeakReport",
    "LeakScan",
    "TermRule",
    "check_leaks",
    "collect_facts",
    "collect_table_facts",
    "load_common_words",
]
