"""Clinical notes with planted identifiers: what stands where is known, so that a recogniser can be measured.

The generator has its own names, nicknames, sentences and formats, taken from no list of the
recogniser's. Half of the clinicians and no relative are known to the raw zone, as in a hospital whose
directory is incomplete. Decoys are marked too: eponyms, drugs, words that are names of others, numbers
that look like identifiers.

Sentences are templates: figures on them say how a recogniser does on such sentences, not on a hospital's
notes.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import random
import re
from pathlib import Path
from typing import Any

FAMILIES = [
    "Abernathy",
    "Achebe",
    "Albrecht",
    "Alvarado",
    "Amundsen",
    "Applewhite",
    "Arslan",
    "Baptiste",
    "Barrington",
    "Beauchamp",
    "Bhattacharya",
    "Bjornstad",
    "Blackwood",
    "Bloom",
    "Brightwater",
    "Castellanos",
    "Chaudhry",
    "Cunningham",
    "Czerny",
    "Dalgaard",
    "Delacroix",
    "Dimitriou",
    "Drummond",
    "Eisenberg",
    "Eriksen",
    "Falkenrath",
    "Featherstone",
    "Ferreira",
    "Fitzpatrick",
    "Fontaine",
    "Garrity",
    "Ghosh",
    "Goldfarb",
    "Guerrero",
    "Haddad",
    "Halvorsen",
    "Hargrove",
    "Hathaway",
    "Ibarra",
    "Ivanova",
    "Jankowski",
    "Jefferies",
    "Kaczmarek",
    "Karlsson",
    "Katz",
    "Kingsley",
    "Kowalczyk",
    "Lachance",
    "Lindqvist",
    "Lombardi",
    "MacAllister",
    "Marchetti",
    "McKinnon",
    "Mbeki",
    "Montague",
    "Mukherjee",
    "Nakagawa",
    "Nwosu",
    "O'Shaughnessy",
    "Oyelaran",
    "Pemberton",
    "Petrov",
    "Quintero",
    "Ramaswamy",
    "Rasmussen",
    "Rosenthal",
    "Rutherford",
    "Santangelo",
    "Schwartzman",
    "Sokolov",
    "Stavros",
    "Steinbrenner",
    "Sundaram",
    "Svensson",
    "Takahashi",
    "Tremblay",
    "Underhill",
    "Vasquez",
    "Villanueva",
    "Wadsworth",
    "Weatherby",
    "Whitfield",
    "Xiong",
    "Yamamoto",
    "Youngblood",
    "Zapata",
    "Zimmerman",
    "Park",
    "Rose",
    "Wilson",
    "Graves",
    "Parkinson",
    "Down",
    "Hill",
    "Young",
    "Black",
    "Li",
    "Ng",
    "Wu",
    "Baker",
    "Price",
    "Day",
    "May",
]
GIVEN = [
    "Adelaide",
    "Alistair",
    "Anjali",
    "Annika",
    "Barnaby",
    "Bartholomew",
    "Beatrice",
    "Bernadette",
    "Camille",
    "Cedric",
    "Clementine",
    "Consuelo",
    "Cordelia",
    "Darius",
    "Desmond",
    "Dmitri",
    "Eleanor",
    "Elizabeth",
    "Emmanuel",
    "Esperanza",
    "Ezekiel",
    "Fernando",
    "Florence",
    "Gabrielle",
    "Gertrude",
    "Giovanni",
    "Gwendolyn",
    "Harriet",
    "Hector",
    "Henrietta",
    "Hiroko",
    "Imogen",
    "Ingrid",
    "Ismael",
    "Jacqueline",
    "Jebediah",
    "Jennifer",
    "Katarzyna",
    "Katherine",
    "Kwame",
    "Lakshmi",
    "Lawrence",
    "Leopold",
    "Lucinda",
    "Magdalena",
    "Margaret",
    "Maximilian",
    "Michael",
    "Mildred",
    "Nathaniel",
    "Nikolai",
    "Octavia",
    "Ophelia",
    "Patricia",
    "Penelope",
    "Phineas",
    "Priscilla",
    "Quincy",
    "Rasheed",
    "Rebecca",
    "Richard",
    "Robert",
    "Rosalind",
    "Samantha",
    "Santiago",
    "Seraphina",
    "Sigrid",
    "Tabitha",
    "Theodore",
    "Timothy",
    "Ulysses",
    "Valentina",
    "Vincent",
    "Walter",
    "Wilhelmina",
    "William",
    "Winston",
    "Xavier",
    "Yevgenia",
    "Zachariah",
    "Zsofia",
    "Rose",
    "Grace",
    "Faith",
    "Will",
    "Mark",
    "Art",
    "Bo",
    "Ty",
]
NICKNAMES = {
    "Elizabeth": "Liz", "Margaret": "Peggy", "William": "Bill", "Robert": "Bob", "Richard": "Rick",
    "Katherine": "Kathy", "Michael": "Mike", "Jennifer": "Jen", "Timothy": "Tim", "Rebecca": "Becky",
    "Patricia": "Trish", "Theodore": "Teddy", "Nathaniel": "Nate", "Samantha": "Sam", "Walter": "Wally",
    "Jacqueline": "Jackie", "Lawrence": "Larry", "Vincent": "Vinny", "Eleanor": "Ellie",
    "Bartholomew": "Bart",
    "Maximilian": "Max", "Magdalena": "Lena", "Ezekiel": "Zeke", "Zachariah": "Zach", "Gwendolyn": "Gwen",
    "Alistair": "Al", "Wilhelmina": "Billie", "Leopold": "Leo", "Florence": "Flossie", "Penelope": "Penny",
}  # fmt: skip
RELATIVES = [
    "Agatha",
    "Brendan",
    "Carlotta",
    "Dwayne",
    "Edith",
    "Fergus",
    "Gloria",
    "Horace",
    "Ivana",
    "Jasper",
    "Kirsten",
    "Leroy",
    "Maureen",
    "Nigel",
    "Oksana",
    "Percy",
    "Ramona",
    "Stefan",
    "Trudy",
    "Umberto",
    "Vera",
    "Wendell",
    "Yolanda",
    "Zeno",
    "Anneliese",
    "Bogdan",
    "Chandra",
    "Dolores",
    "Emre",
    "Fiona",
]
STREETS = [
    "Larkspur Kensington Old Mill",
    "Birchwood",
    "Tannery",
    "Quarry Hill",
    "Saint Albans",
    "Meadowlark",
    "Fourth",
    "Pinecrest",
]
KINDS = ("Street", "Ave", "Road", "Ln", "Drive", "Blvd", "Court")
CITIES = (
    ("Duluth", "MN", "55803"), ("Tucumcari", "NM", "88401"), ("Bangor", "ME", "04401"),
    ("Yakima", "WA", "98902"),
    ("Natchez", "MS", "39120"), ("Elko", "NV", "89801"), ("Ithaca", "NY", "14850"),
    ("Corvallis", "OR", "97330"),
    ("Saginaw", "MI", "48601"), ("Council Bluffs", "IA", "51501"),
)  # fmt: skip
FACILITIES = (
    "Harbor Point Medical Center",
    "St. Brendan Hospital",
    "Cedar Ridge Family Practice",
    "Lakeshore Clinic",
)
UNKNOWN_FACILITIES = ("Mercy Vale Hospital", "Sunnybrook Nursing Home", "Glen Oaks Rehabilitation Center")
EMPLOYERS = ("Hendricks Lumber", "Orchard Foods", "Tri-County Transit")
HEADERS = (
    "HISTORY OF PRESENT ILLNESS",
    "ASSESSMENT AND PLAN",
    "PHYSICAL EXAM",
    "HOSPITAL COURSE",
    "MEDICATIONS",
)
DECOYS = (
    "No evidence of Parkinson disease.", "Family history of Huntington's disease.", "Positive Murphy sign.",
    "Graves disease in remission.", "Screened for Down syndrome.", "Foley catheter draining clear urine.",
    "Wilson's disease excluded by ceruloplasmin.", "Babinski downgoing bilaterally.",
    "Hashimoto thyroiditis, stable.",
    "Started Lasix 40 mg daily and Coumadin 5 mg.", "Continue Synthroid 75 mcg, Lipitor 20 mg.",
    "HbA1c 7.2 %, LDL 104.",
    "BP 128/76, HR 72, RR 16, T 98.6, SpO2 97 % on room air.",
    "Na 138, K 4.1, Cl 101, CO2 24, BUN 14, Cr 0.9.",
    "WBC 11500, Hgb 13.2, Plt 245000.", "EF 55-60 %, grade 2/4 systolic murmur.",
    "Strength 5/5 throughout, reflexes 2+.",
    "Pain 3/10 after Tylenol.", "The patient rose from the chair without help.",
    "Wound is pink, black eschar removed.",
    "May shower; will return if fever.", "The swelling in the hill of the tongue went down.",
    "Mark the site before surgery.",
    "Epley maneuver performed.", "Kernig and Brudzinski signs negative.",
    "Used Allis clamp and Kocher forceps.",
    "Braden score 19, Glasgow Coma Scale 15, APGAR 9.", "SNOMED CT 44054006, ICD-10 E11.65, LOINC 4548-4.",
    "NDC 0002-8215-01 dispensed, 30 tablets, 2 refills.", "Crohn's disease, on Humira.",
    "Mother had Alzheimer disease.",
    "Age 67, weight 82.5 kg, height 171 cm.", "PT/INR 2.4, aPTT 31.",
    "Lungs clear; no grace period for the trial drug.",
    "Discharged on day 3; follow-up in 2 weeks.", "Diet: 1800 kcal ADA.", "McBurney point tender.",
    "L4-L5 disc bulge.",
    "Sertraline 50 mg, Abilify 5 mg, Seroquel at night.", "Father: hypertension. Sister: asthma.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Person:
    """Who a note is about."""

    id: str
    given: str
    middle: str
    family: str
    female: bool
    birth: dt.date
    mrn: str
    ssn: str
    phone: str
    email: str
    street: str
    place: tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class Planted:
    """One identifier, or decoy, and where it stands, in characters."""

    note: int
    kind: str
    start: int
    end: int
    text: str


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Notes, what is in them, and the raw zone that knows of their persons."""

    notes: list[str]
    subjects: list[str]
    planted: list[Planted]
    decoys: list[Planted]
    resources: dict[str, list[dict[str, Any]]]

    def write_raw_zone(self, folder: Path) -> dict[str, list[str]]:
        """Write the resources as NDJSON; return the files by type."""
        files = {}
        for kind, entries in self.resources.items():
            path = folder / f"{kind}.ndjson"
            path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
            files[kind] = [str(path)]
        return files


SENTENCES = (
    "Patient: {full:patient name}    MRN: {mrn:record number}    DOB: {birth:date of birth}",
    "PATIENT NAME: {reversed:patient name}   Acct# {account:account number}",
    "{title} {family:patient name} is a {age}-year-old who presents with chest pain.",
    "{given:patient name} reports feeling better since {day:date}.",
    "{nick:nickname} prefers to be seen in the morning.",
    "Spoke with {nick:nickname} about the results, who agrees.",
    "{typo:misspelt name} was examined in the presence of a chaperone.",
    "Called {title} {typo:misspelt name} with the biopsy result.",
    "Pt initials {initials:initials} confirmed on the wristband.",
    "{family:patient name}'s wound is healing well; {given:patient name} has no fever.",
    "Accompanied by {his} {relation} {relative:relative}, who helped with the history.",
    (
        "{His} {relation} {relative:relative} {relative_family:relative} can be reached at"
        " {other_phone:telephone}."
    ),
    "Emergency contact: {relative:relative} {family:patient name}, {other_phone:telephone}.",
    "{relative:relative}, the {relation}, was updated at the bedside.",
    "Discussed with Dr. {doctor:clinician in the raw zone}, who agrees with the plan.",
    "Seen and examined with {doctor_full:clinician in the raw zone}, MD.",
    "{doctor:clinician in the raw zone} recommends repeat imaging.",
    "Referred by Dr. {stranger:unknown clinician} for evaluation.",
    "{stranger_full:unknown clinician}, RN, notified of the critical value.",
    "Electronically signed by {stranger_full:unknown clinician} on {stamp:date}",
    "Attending: {doctor_full:clinician in the raw zone}",
    "cc: {stranger_full:unknown clinician}",
    "Per {stranger:unknown clinician}, hold anticoagulation.",
    "Admitted {day:date} to {facility:organisation in the raw zone}, discharged {day:date}.",
    "Transferred from {unknown_facility:unknown organisation} on {day:date}.",
    "Lives at {street:address}, {city:town} {zip:postal code}.",
    "{He} lives in {city:town} with {his} {relation}.",
    "Mail results to {address:address}.",
    "Cell {phone:telephone}, e-mail {email:e-mail}.",
    "Best number is {phone:telephone}; leave a message.",
    "SSN {ssn:social security number} verified.",
    "MRN {mrn:record number} confirmed with two identifiers; record {mrn_spaced:record number} merged.",
    "Last colonoscopy {day:date}, next due {month:date}.",
    "Follow-up on {short_day:date} at 10:30.",
    "Born {birth_long:date of birth} in {city:town}.",
    "Policy number {policy:health plan number}, group 4471.",
    "Pacemaker serial number {serial:device}, checked {day:date}.",
    "{old:age over 89} at the time of surgery, frail.",
    "Portal message at https://portal.example.org/m/{token:web address} answered.",
    "Retired from {employer:employer} after 30 years.",
    "{given:patient name} {family:patient name} tolerated the procedure well.",
    "Consent obtained from {full:patient name} and {his} {relation}.",
    "Fax records to {other_phone:telephone}, attention {stranger:unknown clinician}.",
    "I saw {full:patient name} in clinic on {day:date}.",
    "Dictated by: {stranger_full:unknown clinician}   Transcribed: {stamp:date}",
)
UNSEEN = (
    "I had the pleasure of seeing {title} {full:patient name} today, a delightful {age} year old.",
    "{family:patient name} {given:patient name} / {birth:date of birth} / {mrn:record number}",
    "Re: {full:patient name}, d.o.b. {birth:date of birth}, hospital no. {mrn:record number}",
    "Dear Dr. {doctor:clinician in the raw zone}, thank you for sending {given:patient name} to our service.",
    "We will see {nick:nickname} back after labs; {nick:nickname} knows to call.",
    "Chart was filed under {typo:misspelt name} by mistake.",
    "Sitter {relative:relative} was present throughout the night.",
    "{His} {relation}'s name is {relative:relative} and the cell is {other_phone:telephone}.",
    "{relative:relative} ({relation}) drives {given:patient name} to dialysis.",
    "Health care proxy is {relative:relative} {relative_family:relative}, {other_phone:telephone}.",
    (
        "Case reviewed at tumor board on {day:date}; {doctor:clinician in the raw zone} and"
        " {stranger:unknown clinician} concur."
    ),
    "Anesthesia was provided by {stranger_full:unknown clinician}.",
    "Wet read by {stranger:unknown clinician} at 0300.",
    "{stranger_full:unknown clinician}, NP",
    "ATTENDING PHYSICIAN: {doctor_full:clinician in the raw zone}, M.D.",
    "Office of {doctor_full:clinician in the raw zone}, phone {other_phone:telephone}.",
    "The stent was placed {day:date} at {unknown_facility:unknown organisation}.",
    "Prior care at {facility:organisation in the raw zone} until {month:date}.",
    "Residence: {street:address} in {city:town}; ZIP {zip:postal code}.",
    "Grew up near {city:town}, moved away in 1988.",
    "Reach at {phone:telephone} (home) or {email:e-mail}.",
    "Social: {ssn:social security number}. Insurance ID {policy:health plan number}.",
    "Visit of {short_day:date} was cancelled, rebooked for {day:date}.",
    "D: {stamp:date} T: {stamp:date} Job: {account:account number}",
    "ICD implanted {day:date}, S/N {serial:device}.",
    "This {old:age over 89} veteran remains independent.",
    "Employed by {employer:employer}, on leave since {day:date}.",
    "Images: https://pacs.example.org/study/{token:web address}",
    "{given:patient name} signed the form; {initials:initials} on each page.",
    "Name tag read {family:patient name}, wristband {mrn_spaced:record number}.",
)
"""Sentences on which no rule of the first version was tried while it was written. Rules for what they missed
came later: they are no longer kept apart."""
FRESH = (
    "Spoke at length with {full:patient name} and {his} {relation} {relative:relative} about goals of care.",
    "{relative:relative}, {his} {relation}, can be reached at {other_phone:telephone} after hours.",
    "Pt's {relation} ({relative:relative}) brought the bottles from home.",
    "Lives alone since {his} {relation} {relative:relative} passed away in 2019.",
    "Thank you for referring {title} {family:patient name}, whom we saw on {day:date}.",
    ("Plan discussed w/ Dr {stranger:unknown clinician}; {doctor_full:clinician in the raw zone} to follow."),
    "{nick:nickname} was alert and pleasant; no complaints.",
    (
        "Transferred care from {unknown_facility:unknown organisation} under"
        " {stranger_full:unknown clinician}, DO."
    ),
    "Callback {phone:telephone}; email {email:e-mail}; address {address:address}",
    "{full:patient name} (MRN# {mrn:record number}, DOB {birth:date of birth})",
    "Prescription sent to the pharmacy in {city:town}, {zip:postal code}.",
    "SS# {ssn:social security number}; member no. {policy:health plan number}",
    "Works for {employer:employer}; last day worked {day:date}.",
    "Device S/N: {serial:device} interrogated {day:date}.",
    "At {old:age over 89}, {given:patient name} is the oldest in the family.",
    "Interpreter {stranger_full:unknown clinician} assisted; {relative:relative} signed as witness.",
    "Emergency contact: {relative:relative} ({relation}), {other_phone:telephone}",
    "{initials:initials} / {day:date}",
    "Addendum {stamp:date} by {stranger_full:unknown clinician}: agree with above.",
    "See {given:patient name}'s advance directive, scanned {day:date}.",
    "Hosp acct {account:account number} closed.",
    "Moved here from {city:town} in {month:date}.",
    "{His} friend {relative:relative} {relative_family:relative} visits daily.",
    "Letter to {street:address} returned undelivered {short_day:date}.",
    "{typo:misspelt name}, {given:patient name}: specimen relabelled.",
    (
        "Follow up with {doctor:clinician in the raw zone} at {facility:organisation in the raw zone} on"
        " {day:date}."
    ),
    "Link: www.example.org/r/{token:web address}",
)
"""Sentences that were written before the rules of the present version; no rule was tried on them."""

_SLOT = re.compile(r"\{(\w+)(?::([^}]+))?\}")


def make_corpus(patients: int, notes_each: int, seed: int, sentences: tuple[str, ...] = SENTENCES) -> Corpus:
    """Make notes of patients, reproducibly."""
    rng = random.Random(seed)
    people = [_make_person(rng, number) for number in range(patients)]
    doctors = [(rng.choice(GIVEN), rng.choice(FAMILIES)) for _ in range(40)]
    notes, subjects = [], []
    planted: list[Planted] = []
    decoys: list[Planted] = []
    for person in people:
        for _ in range(notes_each):
            text = _write_note(rng, person, doctors, len(notes), planted, decoys, sentences)
            notes.append(text)
            subjects.append(person.id)
    return Corpus(notes, subjects, planted, decoys, _make_resources(people, doctors[:20]))


def _make_person(rng: random.Random, number: int) -> Person:
    given, family = rng.choice(GIVEN), rng.choice(FAMILIES)
    return Person(
        id=f"pt-{number:05d}-{rng.randrange(16**8):08x}",
        given=given,
        middle=rng.choice(GIVEN),
        family=family,
        female=rng.random() < 0.5,
        birth=dt.date(1936, 1, 1) + dt.timedelta(days=rng.randrange(25_000)),
        mrn=f"{rng.randrange(10**7, 10**8)}",
        ssn=f"{rng.randrange(100, 600)}-{rng.randrange(10, 99)}-{rng.randrange(1000, 9999)}",
        phone=f"{rng.randrange(201, 209)}-{rng.randrange(300, 699)}-{rng.randrange(1000, 9999)}",
        email=f"{given[0].lower()}{family.lower().replace(chr(39), '')}{rng.randrange(99)}@mailbox.example",
        street=f"{rng.randrange(2, 2400)} {rng.choice(STREETS)} {rng.choice(KINDS)}",
        place=rng.choice(CITIES),
    )


def _make_resources(people: list[Person], doctors: list[tuple[str, str]]) -> dict[str, list[dict[str, Any]]]:
    patients = [
        {
            "resourceType": "Patient",
            "id": person.id,
            "identifier": [
                {"system": "urn:mrn", "value": person.mrn},
                {"system": "urn:ssn", "value": person.ssn},
            ],
            "name": [{"family": person.family, "given": [person.given, person.middle]}],
            "telecom": [
                {"system": "phone", "value": person.phone},
                {"system": "email", "value": person.email},
            ],
            "birthDate": person.birth.isoformat(),
            "address": [
                {
                    "line": [person.street],
                    "city": person.place[0],
                    "state": person.place[1],
                    "postalCode": person.place[2],
                }
            ],
        }
        for person in people
    ]
    practitioners = [
        {"resourceType": "Practitioner", "id": f"dr-{number}", "name": [{"family": family, "given": [given]}]}
        for number, (given, family) in enumerate(doctors)
    ]
    organizations = [
        {"resourceType": "Organization", "id": f"org-{number}", "name": name}
        for number, name in enumerate(FACILITIES)
    ]
    return {"Patient": patients, "Practitioner": practitioners, "Organization": organizations}


def _write_note(
    rng: random.Random,
    person: Person,
    doctors: list[tuple[str, str]],
    note: int,
    planted: list[Planted],
    decoys: list[Planted],
    sentences: tuple[str, ...],
) -> str:
    text = ""
    chosen = rng.sample(sentences, 9)
    lines: list[str | None] = [*chosen, *([None] * 14)]
    rng.shuffle(lines)
    for number, line in enumerate(lines):
        if number % 6 == 0:
            text += f"\n{rng.choice(HEADERS)}:\n"
        if line is None:
            decoy = rng.choice(DECOYS)
            # Where the patient has the name of the eponym or the word, taking it out is no mistake.
            own = {person.given.lower(), person.family.lower(), person.middle.lower()}
            if not own & set(re.findall(r"\w+", decoy.lower())):
                decoys.append(Planted(note, "decoy", len(text), len(text) + len(decoy), decoy))
            text += decoy
        else:
            text = _fill(rng, line, person, doctors, note, text, planted)
        text += rng.choice((" ", "\n")) if text.endswith(".") else "\n"
    return text


def _fill(
    rng: random.Random,
    line: str,
    person: Person,
    doctors: list[tuple[str, str]],
    note: int,
    text: str,
    planted: list[Planted],
) -> str:
    known, stranger = rng.choice(doctors[:20]), rng.choice(doctors[20:])
    position = 0
    for match in _SLOT.finditer(line):
        text += line[position : match.start()]
        value = _value(rng, match[1], person, known, stranger)
        if match[2] and value:
            planted.append(Planted(note, match[2], len(text), len(text) + len(value), value))
        text += value
        position = match.end()
    return text + line[position:]


def _value(  # noqa: C901, PLR0911, PLR0912 - one case per slot
    rng: random.Random, slot: str, person: Person, known: tuple[str, str], stranger: tuple[str, str]
) -> str:
    day = dt.date(2015, 1, 1) + dt.timedelta(days=rng.randrange(4000))
    match slot:
        case "full":
            return rng.choice(
                (f"{person.given} {person.family}", f"{person.given} {person.middle[0]}. {person.family}",
                 f"{person.given} {person.family}".upper())
            )  # fmt: skip
        case "reversed":
            return f"{person.family}, {person.given}" + rng.choice(("", f" {person.middle}"))
        case "given" | "family" | "mrn":
            return str(getattr(person, slot))
        case "nick":
            return NICKNAMES.get(person.given, person.given)
        case "typo":
            return _misspell(rng, person.family)
        case "initials":
            return f"{person.given[0]}.{person.middle[0]}.{person.family[0]}."
        case "title":
            return "Ms." if person.female else "Mr."
        case "he" | "He":
            word = "she" if person.female else "he"
            return word.capitalize() if slot == "He" else word
        case "his" | "His":
            word = "her" if person.female else "his"
            return word.capitalize() if slot == "His" else word
        case "age":
            return str(2026 - person.birth.year if person.birth.year > 1937 else 88)
        case "old":
            return rng.choice(
                (
                    f"{rng.randrange(90, 103)} years old",
                    f"{rng.randrange(90, 103)} y.o.",
                    f"{rng.randrange(90, 99)}-year-old",
                )
            )
        case "relation":
            return rng.choice(
                ("wife", "husband", "daughter", "son", "sister", "brother", "partner", "neighbor")
            )
        case "relative":
            return rng.choice(RELATIVES)
        case "relative_family" | "stranger":
            return stranger[1]
        case "doctor":
            return known[1]
        case "doctor_full":
            return f"{known[0]} {known[1]}"
        case "stranger_full":
            return f"{stranger[0]} {stranger[1]}"
        case "facility":
            return rng.choice(FACILITIES)
        case "unknown_facility":
            return rng.choice(UNKNOWN_FACILITIES)
        case "employer":
            return rng.choice(EMPLOYERS)
        case "street":
            return person.street
        case "city":
            return person.place[0]
        case "zip":
            return person.place[2]
        case "address":
            return f"{person.street}, {person.place[0]}, {person.place[1]} {person.place[2]}"
        case "phone" | "other_phone":
            number = (
                person.phone
                if slot == "phone"
                else f"{rng.randrange(201, 209)}-{rng.randrange(300, 699)}-{rng.randrange(1000, 9999)}"
            )
            area, office, line = number.split("-")
            return rng.choice(
                (
                    number,
                    f"({area}) {office}-{line}",
                    f"{area}.{office}.{line}",
                    f"{area} {office} {line}",
                    f"+1 {area} {office} {line}",
                )
            )
        case "email":
            return person.email
        case "ssn":
            return rng.choice((person.ssn, person.ssn.replace("-", " ")))
        case "mrn_spaced":
            return f"{person.mrn[:2]}-{person.mrn[2:5]}-{person.mrn[5:]}"
        case "account":
            return f"{rng.randrange(10**8, 10**9)}"
        case "policy":
            return f"{rng.choice('XYZ')}{rng.choice('HJW')}{rng.randrange(10**8, 10**9)}"
        case "serial":
            return f"PM{rng.randrange(10**6, 10**7)}"
        case "token":
            return f"{rng.randrange(16**6):06x}"
        case "birth":
            return _write_date(rng, person.birth)
        case "birth_long":
            return f"{person.birth:%B} {person.birth.day}, {person.birth.year}"
        case "day":
            return _write_date(rng, day)
        case "short_day":
            return rng.choice((f"{day.month}/{day.day}", f"{day:%B} {day.day}", f"{day:%b} {day.day}"))
        case "month":
            return f"{day:%B %Y}"
        case "stamp":
            return f"{day:%m/%d/%Y}"
        case _:
            raise ValueError(slot)


def _write_date(rng: random.Random, day: dt.date) -> str:
    return rng.choice(
        (
            f"{day:%m/%d/%Y}", f"{day.month}/{day.day}/{day.year % 100:02d}", f"{day:%Y-%m-%d}",
            f"{day:%B} {day.day}, {day.year}",
            f"{day.day} {day:%b %Y}", f"{day:%d-%b-%Y}".upper(), f"{day.month}-{day.day}-{day.year}",
            f"{day:%b}. {day.day}, {day.year}",
        )
    )  # fmt: skip


def _misspell(rng: random.Random, name: str) -> str:
    if len(name) < 5:
        return name
    place = rng.randrange(1, len(name) - 1)
    match rng.randrange(4):
        case 0:
            return name[:place] + name[place + 1 :]
        case 1:
            return name[:place] + name[place] + name[place:]
        case 2:
            return name[:place] + name[place + 1] + name[place] + name[place + 2 :]
        case _:
            return name[:place] + rng.choice("aeiourstln") + name[place + 1 :]
