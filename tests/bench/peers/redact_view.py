"""The ten columns, redacted as the policy `shifted_dates` says: three ids hashed, dates shifted.

Usage: redact_view.py VIEW.json IN.ndjson OUT.parquet.
"""

import json
import secrets
import sys
from datetime import date
from pathlib import Path

from cohortflow.fhir.ndjson import read_views
from cohortflow.fhir.views import compile_view
from cohortflow.redaction import NO_AGES, ProjectKey, classify_columns, load_policy, plan_redaction, redact
from cohortflow.workflow.study import Project


def main() -> None:
    """Compute and redact the view in one plan."""
    definition, source, out = sys.argv[1:]
    view = compile_view(json.loads(Path(definition).read_text(encoding="utf-8")))
    policy = load_policy(Project.default().catalog, "shifted_dates")
    plan = plan_redaction(view.name, classify_columns(view.columns), policy)
    key = ProjectKey.from_text(secrets.token_hex(32))
    read_views([view], [source]).execute(
        lambda frames: [
            redact(frames[view.name], plan, key, as_of=date(2026, 11, 1), ages=NO_AGES).sink_parquet(
                out, lazy=True
            )
        ]
    )


main()
