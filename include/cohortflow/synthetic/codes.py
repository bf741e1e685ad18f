"""Every published code that the synthetic patients carry.

The table is the contract with concept maps, value sets and tests: a code that is not here does not
occur in generated data, and each code here can occur. Displays are those of the code systems
(SNOMED CT, ICD-10-CM, LOINC, RxNorm, CVX).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "ALLERGIES",
    "CODES",
    "CONDITIONS",
    "CVX",
    "DOCUMENT_TYPES",
    "ENCOUNTER_TYPES",
    "ICD10CM",
    "IMMUNIZATIONS",
    "LOCAL_LAB",
    "LOCAL_OBSERVATIONS",
    "LOINC",
    "MEDICATIONS",
    "OBSERVATIONS",
    "PANELS",
    "PROCEDURES",
    "RXNORM",
    "SMOKING_STATUS",
    "SNOMED",
    "UCUM",
    "Code",
    "ConditionCode",
    "Role",
]

SNOMED = "http://snomed.info/sct"
ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
LOINC = "http://loinc.org"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
CVX = "http://hl7.org/fhir/sid/cvx"
UCUM = "http://unitsofmeasure.org"
LOCAL_LAB = "https://lab.example.org/codes"
"""The laboratory's own codes: some results carry one beside LOINC, and one test has no other."""


class Role(StrEnum):
    """Where a code stands in the generated resources."""

    ALLERGY = "allergy"
    CONDITION = "condition"
    DOCUMENT = "document"
    ENCOUNTER_TYPE = "encounter-type"
    IMMUNIZATION = "immunization"
    MEDICATION = "medication"
    OBSERVATION = "observation"
    OBSERVATION_VALUE = "observation-value"
    PANEL = "panel"
    PROCEDURE = "procedure"


@dataclass(frozen=True, slots=True)
class Code:
    """One code of a code system.

    Attributes:
        name: Short name within its role, such as ``hba1c``.
        system: Canonical URI of the code system.
        code: The code.
        display: Its display text.
        role: Where it occurs.
        unit: UCUM code of the value, for observations with a quantity.
    """

    name: str
    system: str
    code: str
    display: str
    role: Role
    unit: str = ""


@dataclass(frozen=True, slots=True)
class ConditionCode:
    """A diagnosis as both of its codings.

    Attributes:
        name: Short name, such as ``t2d``.
        snomed: SNOMED CT concept id.
        snomed_display: Its display text.
        icd10cm: ICD-10-CM code of the same diagnosis.
        icd10cm_display: Its display text.
    """

    name: str
    snomed: str
    snomed_display: str
    icd10cm: str
    icd10cm_display: str


CONDITIONS: tuple[ConditionCode, ...] = (
    ConditionCode("t2d", "44054006", "Diabetes mellitus type 2 (disorder)",
                  "E11.9", "Type 2 diabetes mellitus without complications"),
    ConditionCode("prediabetes", "15777000", "Prediabetes (finding)", "R73.03", "Prediabetes"),
    ConditionCode("ckd3a", "700378005", "Chronic kidney disease stage 3A (disorder)",
                  "N18.31", "Chronic kidney disease, stage 3a"),
    ConditionCode("ckd3b", "700379002", "Chronic kidney disease stage 3B (disorder)",
                  "N18.32", "Chronic kidney disease, stage 3b"),
    ConditionCode("ckd4", "431857002", "Chronic kidney disease stage 4 (disorder)",
                  "N18.4", "Chronic kidney disease, stage 4 (severe)"),
    ConditionCode("ckd5", "433146000", "Chronic kidney disease stage 5 (disorder)",
                  "N18.5", "Chronic kidney disease, stage 5"),
    ConditionCode("hypertension", "59621000", "Essential hypertension (disorder)",
                  "I10", "Essential (primary) hypertension"),
    ConditionCode("hyperlipidemia", "55822004", "Hyperlipidemia (disorder)",
                  "E78.5", "Hyperlipidemia, unspecified"),
    ConditionCode("obesity", "414916001", "Obesity (disorder)", "E66.9", "Obesity, unspecified"),
    ConditionCode("asthma", "195967001", "Asthma (disorder)",
                  "J45.909", "Unspecified asthma, uncomplicated"),
    ConditionCode("asthma_exacerbation", "708038006", "Acute exacerbation of asthma (disorder)",
                  "J45.901", "Unspecified asthma with (acute) exacerbation"),
    ConditionCode("common_cold", "82272006", "Common cold (disorder)",
                  "J00", "Acute nasopharyngitis [common cold]"),
    ConditionCode("pharyngitis", "363746003", "Acute pharyngitis (disorder)",
                  "J02.9", "Acute pharyngitis, unspecified"),
    ConditionCode("sinusitis", "15805002", "Acute sinusitis (disorder)",
                  "J01.90", "Acute sinusitis, unspecified"),
    ConditionCode("bronchitis", "10509002", "Acute bronchitis (disorder)",
                  "J20.9", "Acute bronchitis, unspecified"),
    ConditionCode("otitis_media", "65363002", "Otitis media (disorder)",
                  "H66.90", "Otitis media, unspecified, unspecified ear"),
    ConditionCode("uti", "68566005", "Urinary tract infectious disease (disorder)",
                  "N39.0", "Urinary tract infection, site not specified"),
    ConditionCode("ankle_sprain", "44465007", "Sprain of ankle (disorder)",
                  "S93.409A", "Sprain of unspecified ligament of unspecified ankle, initial encounter"),
    ConditionCode("low_back_pain", "279039007", "Low back pain (finding)",
                  "M54.50", "Low back pain, unspecified"),
)  # fmt: skip
"""Diagnoses, each as a SNOMED CT and an ICD-10-CM code."""

_EGFR_DISPLAY = (
    "Glomerular filtration rate/1.73 sq M.predicted [Volume Rate/Area] in Serum, Plasma or Blood by "
    "Creatinine-based formula (CKD-EPI 2021)"
)

OBSERVATIONS: tuple[Code, ...] = tuple(
    Code(name, LOINC, code, display, Role.OBSERVATION, unit)
    for name, code, display, unit in (
        ("weight", "29463-7", "Body weight", "kg"),
        ("height", "8302-2", "Body height", "cm"),
        ("bmi", "39156-5", "Body mass index (BMI) [Ratio]", "kg/m2"),
        ("heart_rate", "8867-4", "Heart rate", "/min"),
        ("temperature", "8310-5", "Body temperature", "Cel"),
        ("spo2", "2708-6", "Oxygen saturation in Arterial blood", "%"),
        ("spo2_oximetry", "59408-5", "Oxygen saturation in Arterial blood by Pulse oximetry", "%"),
        ("blood_pressure", "85354-9", "Blood pressure panel with all children optional", ""),
        ("systolic", "8480-6", "Systolic blood pressure", "mm[Hg]"),
        ("diastolic", "8462-4", "Diastolic blood pressure", "mm[Hg]"),
        ("hba1c", "4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "%"),
        ("glucose", "2345-7", "Glucose [Mass/volume] in Serum or Plasma", "mg/dL"),
        ("creatinine", "2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL"),
        ("egfr", "98979-8", _EGFR_DISPLAY, "mL/min/{1.73_m2}"),
        ("potassium", "2823-3", "Potassium [Moles/volume] in Serum or Plasma", "mmol/L"),
        ("cholesterol", "2093-3", "Cholesterol [Mass/volume] in Serum or Plasma", "mg/dL"),
        ("triglycerides", "2571-8", "Triglyceride [Mass/volume] in Serum or Plasma", "mg/dL"),
        ("hdl", "2085-9", "Cholesterol in HDL [Mass/volume] in Serum or Plasma", "mg/dL"),
        ("ldl", "13457-7", "Cholesterol in LDL [Mass/volume] in Serum or Plasma by calculation", "mg/dL"),
        ("uacr", "9318-7", "Albumin/Creatinine [Mass Ratio] in Urine", "mg/g"),
        ("fasting", "49541-6", "Fasting status - Reported", ""),
        ("peak_flow", "19935-6", "Maximum expiratory gas flow Respiratory system airway by Peak flow meter",
         "L/min"),
        ("fev1", "20150-9", "FEV1", "L"),
        ("smoking", "72166-2", "Tobacco smoking status", ""),
        ("phq2", "55758-7", "Patient Health Questionnaire 2 item (PHQ-2) total score [Reported]", ""),
        ("lmp", "8665-2", "Last menstrual period start date", ""),
    )
)  # fmt: skip
"""Measurements and findings, with the UCUM unit of their quantity."""

LOCAL_OBSERVATIONS: tuple[Code, ...] = (
    Code("creatinine_local", LOCAL_LAB, "CRE", "Creatinine, serum", Role.OBSERVATION, "mg/dL"),
    Code("specimen_comment", LOCAL_LAB, "SPCOM", "Specimen comment", Role.OBSERVATION),
)
"""Codes of the laboratory itself; ``SPCOM`` stands alone, so that no concept map can know it."""

PANELS: tuple[Code, ...] = (
    Code("metabolic", LOINC, "51990-0", "Basic metabolic panel - Blood", Role.PANEL),
    Code("lipids", LOINC, "24331-1", "Lipid 1996 panel - Serum or Plasma", Role.PANEL),
)
"""Codes of diagnostic reports."""

MEDICATIONS: tuple[Code, ...] = tuple(
    Code(name, RXNORM, code, display, Role.MEDICATION)
    for name, code, display in (
        ("metformin", "861007", "metformin hydrochloride 500 MG Oral Tablet"),
        ("empagliflozin", "1545658", "empagliflozin 10 MG Oral Tablet"),
        ("insulin_glargine", "311041", "insulin glargine 100 UNT/ML Injectable Solution"),
        ("lisinopril", "314076", "lisinopril 10 MG Oral Tablet"),
        ("amlodipine", "197361", "amlodipine 5 MG Oral Tablet"),
        ("atorvastatin", "617310", "atorvastatin 20 MG Oral Tablet"),
        ("albuterol", "745679", "200 ACTUAT albuterol 0.09 MG/ACTUAT Metered Dose Inhaler"),
        ("fluticasone", "895994", "120 ACTUAT fluticasone propionate 0.044 MG/ACTUAT Metered Dose Inhaler"),
        ("prednisone", "312615", "prednisone 20 MG Oral Tablet"),
        ("amoxicillin", "308191", "amoxicillin 500 MG Oral Capsule"),
        ("acetaminophen", "313782", "acetaminophen 325 MG Oral Tablet"),
        ("ibuprofen", "310965", "ibuprofen 200 MG Oral Tablet"),
    )
)
"""Prescribed drugs (RxNorm clinical drugs and packs)."""

PROCEDURES: tuple[Code, ...] = tuple(
    Code(name, SNOMED, code, display, Role.PROCEDURE)
    for name, code, display in (
        ("foot_exam", "401191002", "Diabetic foot examination (regime/therapy)"),
        ("retinal_screening", "134395001", "Diabetic retinopathy screening (procedure)"),
        ("spirometry", "127783003", "Spirometry (procedure)"),
        ("colonoscopy", "73761001", "Colonoscopy (procedure)"),
        ("electrocardiogram", "29303009", "Electrocardiographic procedure (procedure)"),
        ("medication_reconciliation", "430193006", "Medication reconciliation (procedure)"),
    )
)
"""Procedures."""

IMMUNIZATIONS: tuple[Code, ...] = tuple(
    Code(name, CVX, code, display, Role.IMMUNIZATION)
    for name, code, display in (
        ("influenza", "140", "Influenza, seasonal, injectable, preservative free"),
        ("tdap", "115", "Tdap"),
        ("pneumococcal", "33", "pneumococcal polysaccharide PPV23"),
        ("zoster", "187", "zoster recombinant"),
        ("mmr", "03", "MMR"),
        ("varicella", "21", "varicella"),
    )
)
"""Vaccines (CVX)."""

ALLERGIES: tuple[Code, ...] = (
    Code("none", SNOMED, "716186003", "No known allergy (situation)", Role.ALLERGY),
    Code("amoxicillin", RXNORM, "723", "amoxicillin", Role.ALLERGY),
    Code("aspirin", RXNORM, "1191", "aspirin", Role.ALLERGY),
    Code("sulfamethoxazole", RXNORM, "10180", "sulfamethoxazole", Role.ALLERGY),
    Code("codeine", RXNORM, "2670", "codeine", Role.ALLERGY),
    Code("peanut", SNOMED, "91935009", "Allergy to peanut (finding)", Role.ALLERGY),
    Code("tree_pollen", SNOMED, "419263009", "Allergy to tree pollen (finding)", Role.ALLERGY),
    Code("dust_mite", SNOMED, "232350006", "House dust mite allergy (finding)", Role.ALLERGY),
)
"""What patients are allergic to; the first says that there is no allergy."""

ENCOUNTER_TYPES: tuple[Code, ...] = tuple(
    Code(name, SNOMED, code, display, Role.ENCOUNTER_TYPE)
    for name, code, display in (
        ("checkup", "185349003", "Encounter for check up (procedure)"),
        ("follow_up", "390906007", "Follow-up encounter (procedure)"),
        ("problem", "185347001", "Encounter for problem (procedure)"),
        ("emergency", "50849002", "Emergency room admission (procedure)"),
    )
)
"""Types of encounter."""

SMOKING_STATUS: tuple[Code, ...] = tuple(
    Code(name, SNOMED, code, display, Role.OBSERVATION_VALUE)
    for name, code, display in (
        ("never", "266919005", "Never smoked tobacco (finding)"),
        ("former", "8517006", "Ex-smoker (finding)"),
        ("current", "449868002", "Smokes tobacco daily (finding)"),
    )
)
"""Answers to the smoking question."""

DOCUMENT_TYPES: tuple[Code, ...] = (Code("progress_note", LOINC, "11506-3", "Progress note", Role.DOCUMENT),)
"""Types of document."""

CODES: tuple[Code, ...] = (
    *(Code(c.name, SNOMED, c.snomed, c.snomed_display, Role.CONDITION) for c in CONDITIONS),
    *(Code(c.name, ICD10CM, c.icd10cm, c.icd10cm_display, Role.CONDITION) for c in CONDITIONS),
    *OBSERVATIONS,
    *LOCAL_OBSERVATIONS,
    *SMOKING_STATUS,
    *PANELS,
    *MEDICATIONS,
    *PROCEDURES,
    *IMMUNIZATIONS,
    *ALLERGIES,
    *ENCOUNTER_TYPES,
    *DOCUMENT_TYPES,
)
"""The whole table, conditions once per coding."""
