"""What patients want kept out of research: Consents and security labels, drawn beside everything else.

Nothing here touches the streams that the records come from: with and without it the same people have the same
care, and only labels and Consents are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from cohortflow.synthetic.scene import HL7, Scene, coding, concept
from cohortflow.synthetic.streams import Floats, Ints, below, uniform
from cohortflow.synthetic.template import JsonTemplate, take

__all__ = ["Wishes", "draw_wishes", "label_lines", "render_consents"]

_ASKED: Final = 0.75
_DENIES: Final = 0.15
_REVOKES: Final = 0.05
_VIP: Final = 0.03
_SENSITIVE: Final = 0.12
_EXCEPTS: Final = 0.5

_LABELS: Final = (("42CFRPart2", "ActCode"), ("HIV", "ActCode"), ("PSY", "ActCode"), ("R", "Confidentiality"))
_LABELLED: Final = ("Condition", "Observation", "MedicationRequest", "DocumentReference")
# Of a labelled patient's records these bear the label: those whose id ends so.
_RECORDS: Final = "[0-5]"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What each patient of a range wants.

    Attributes:
        decision: ``deny``, ``permit``, ``revoked`` (a permission and a later denial), ``exception`` (a denial
            but for research), ``none``.
        vip: Whether the patient is to be protected as a celebrity.
        label: Code of the label on some of the patient's records, or empty.
    """

    decision: pl.Series
    vip: pl.Series
    label: pl.Series

    def truth(self, patient_ids: pl.Series) -> pl.DataFrame:
        """Return one row per patient: ``patient_id, decision, vip, label``."""
        return pl.DataFrame(
            {"patient_id": patient_ids, "decision": self.decision, "vip": self.vip, "label": self.label}
        )


def draw_wishes(scene: Scene, first: int) -> Wishes:
    """Draw the wishes of a scene's patients.

    Args:
        scene: The patients.
        first: Number of the first of them.
    """
    words = scene.stage.streams.words("privacy", first, scene.people.count, 4)
    asked, vip, sensitive = (uniform(words[:, column]) for column in range(3))
    label = np.where(sensitive < _SENSITIVE, below(words[:, 3], len(_LABELS)) + 1, 0)
    return Wishes(
        decision=_decide(asked),
        vip=pl.Series(vip < _VIP),
        label=take(pl.Series(["", *(code for code, _ in _LABELS)]), label),
    )


def _decide(asked: Floats) -> pl.Series:
    bounds = np.cumsum([_DENIES, _REVOKES, _REVOKES * _EXCEPTS])
    names = pl.Series(["deny", "revoked", "exception", "permit", "none"])
    return take(names, np.searchsorted([*bounds, _ASKED], asked, side="right"))


_CONSENT = JsonTemplate(
    {
        "resourceType": "Consent",
        "id": "{id}",
        "meta": {"lastUpdated": "{updated}"},
        "status": "active",
        "scope": concept(coding(HL7 + "consentscope", "research", "Research")),
        "category": [concept(coding(HL7 + "consentcategorycodes", "research", "Research"))],
        "patient": {"reference": "Patient/{patient}"},
        "dateTime": "{date}",
        "policyRule": concept(coding(HL7 + "v3-ActCode", "{policy}")),
        "provision": "{=provision}",
    }
)
_RESEARCH: Final = '"purpose":[{"system":"' + HL7 + 'v3-ActReason","code":"HRESCH"}]'
_PROVISIONS: Final = {
    "deny": '{"type":"deny"}',
    "permit": '{"type":"permit",' + _RESEARCH + "}",
    "exception": '{"type":"deny","provision":[{"type":"permit",' + _RESEARCH + "}]}",
}


def render_consents(scene: Scene, wishes: Wishes) -> pl.Series:
    """Write the Consents as JSON lines; of a revoked one the permission and, a year later, the denial."""
    decision = wishes.decision.to_numpy()
    earlier = {"permit": "permit", "revoked": "permit", "deny": "deny", "exception": "exception"}
    parts: list[pl.Series] = []
    patients: list[Ints] = []
    for sequence, kinds in enumerate((earlier, {"revoked": "deny"})):
        rows = np.flatnonzero(np.isin(decision, list(kinds)))
        patients.append(rows)
        chosen = pl.Series([kinds[name] for name in decision[rows]], dtype=pl.String)
        day = np.full(len(rows), scene.stage.as_of - 800 + 365 * sequence)
        parts.append(
            _CONSENT.render(
                {
                    "id": scene.people.ids.derive("Consent", rows, np.full(len(rows), sequence)),
                    "updated": scene.updated(day),
                    "patient": take(scene.patient_ids, rows),
                    "date": scene.stage.calendar.date(day),
                    "policy": chosen.replace_strict(
                        {"permit": "OPTIN", "deny": "OPTOUT", "exception": "OPTOUT"}, return_dtype=pl.String
                    ),
                    "provision": chosen.replace_strict(_PROVISIONS, return_dtype=pl.String),
                }
            )
        )
    # By patient, so that the file does not depend on how many are rendered at a time.
    return take(pl.concat(parts), np.argsort(np.concatenate(patients), kind="stable"))


def label_lines(
    lines: Mapping[str, pl.Series], patient_ids: pl.Series, wishes: Wishes
) -> dict[str, pl.Series]:
    """Put the labels into JSON lines of resources.

    Args:
        lines: Lines by resource type.
        patient_ids: Ids of the range's patients.
        wishes: What they want.
    """
    codes = pl.Series([code for code, _ in _LABELS])
    systems = pl.Series([f"{HL7}v3-{system}" for _, system in _LABELS])
    spoken = '"meta":{"security":[{"system":"' + systems + '","code":"' + codes + '"}],'
    security = wishes.label.replace_strict(codes, spoken, default="", return_dtype=pl.String)
    marked = pl.DataFrame({"patient": patient_ids, "meta": security}).filter(security != "")
    celebrity = f'"meta":{{"security":[{{"system":"{HL7}v3-ActCode","code":"VIP"}}],'
    found = dict(lines)
    found["Patient"] = (
        pl.DataFrame({"line": lines["Patient"], "vip": wishes.vip})
        .select(
            pl.when("vip")
            .then(pl.col("line").str.replace('"meta":{', celebrity, literal=True))
            .otherwise("line")
        )
        .to_series()
    )
    for kind in _LABELLED:
        frame = pl.DataFrame({"line": lines[kind]}).with_columns(
            patient=pl.col("line").str.extract(r'"subject":\{"reference":"Patient/([^"]+)"'),
            ends=pl.col("line").str.contains(rf'^\{{"resourceType":"{kind}","id":"[^"]*{_RECORDS}"'),
        )
        frame = frame.join(marked, on="patient", how="left", maintain_order="left")
        labelled = pl.col("line").str.replace('"meta":{', pl.col("meta"), literal=True)
        found[kind] = frame.select(
            pl.when(pl.col("ends") & pl.col("meta").is_not_null()).then(labelled).otherwise("line")
        ).to_series()
    return found
