"""Our values against those of fhirpathpy, an independent evaluator, for many expressions."""

import json

import pytest

from cohortflow.fhir.views import compile_view

fhirpathpy = pytest.importorskip("fhirpathpy")
r4 = pytest.importorskip("fhirpathpy.models").models["r4"]

PATIENTS = [
    {
        "resourceType": "Patient",
        "id": "p1",
        "active": True,
        "gender": "female",
        "birthDate": "1970-06-01",
        "deceasedBoolean": False,
        "multipleBirthInteger": 2,
        "identifier": [
            {"type": {"coding": [{"code": "MR"}, {"code": "X"}]}, "value": "m1", "use": "old"},
            {"system": "http://hl7.org/fhir/sid/us-ssn", "value": "s1"},
        ],
        "name": [
            {"use": "official", "family": "Abe", "given": ["A", "B"]},
            {"use": "usual", "family": "Äbe", "given": ["C"]},
            {"given": ["D", "A"]},
        ],
        "telecom": [
            {"system": "phone", "value": "1", "rank": 2},
            {"system": "email", "value": "e", "rank": 1},
        ],
        "contact": [
            {"name": {"given": ["K"]}, "telecom": [{"value": "k1"}, {"value": "k2"}]},
            {"telecom": [{"value": "k3"}]},
            {"gender": "male"},
        ],
        "address": [{"line": ["1 Road", "Flat 2"], "city": "X"}],
        "extension": [
            {"url": "u1", "valueString": "one"},
            {"url": "u2", "extension": [{"url": "in", "valueCoding": {"code": "c"}}]},
            {"url": "u1", "valueInteger": 7},
        ],
    },
    {
        "resourceType": "Patient",
        "id": "p2",
        "active": False,
        "birthDate": "1980",
        "deceasedDateTime": "2020-01-01T10:00:00Z",
        "name": [{"family": "Only", "given": ["Solo"]}],
        "telecom": [{"system": "phone", "value": "22"}],
    },
    {"resourceType": "Patient", "id": "p3", "name": [], "multipleBirthBoolean": True},
    {"resourceType": "Patient", "id": "p4", "gender": "male", "name": [{}, {"use": "official"}]},
]
OBSERVATIONS = [
    {
        "resourceType": "Observation",
        "id": "o1",
        "status": "final",
        "code": {"coding": [{"system": "s", "code": "a"}, {"system": "s", "code": "b"}]},
        "category": [{"coding": [{"code": "x"}]}, {"coding": [{"code": "y"}, {"code": "z"}]}],
        "valueQuantity": {"value": 7.25, "unit": "mg"},
        "effectiveDateTime": "2020-01-31T10:00:00+02:00",
    },
    {
        "resourceType": "Observation",
        "id": "o2",
        "status": "final",
        "code": {"text": "t"},
        "valueInteger": -3,
        "effectivePeriod": {"start": "2020-01-01"},
        "component": [
            {"valueQuantity": {"value": 1}},
            {"valueQuantity": {"value": 2.5}},
            {"valueString": "s"},
        ],
    },
    {"resourceType": "Observation", "id": "o3", "code": {}, "valueString": "text", "component": []},
    {"resourceType": "Observation", "id": "o4", "valueBoolean": False, "effectiveDateTime": "2020-01-31"},
]

ON_PATIENTS = """
id
name.family
name.given
name.given.first()
name.given.last()
name.first().given
name[1].family
name[5].family
name.given[2]
name.where(use = 'official').given
name.where(use = 'official' or given.exists()).given.count()
name.where(given.where($this = 'A').exists()).family
name.where(family.exists().not()).given
name.exists()
name.exists(use = 'usual')
name.given.exists()
name.empty()
name.count()
name.given.tail()
name.given.skip(1)
name.given.take(2)
name.given.distinct()
name.given.isDistinct()
name.select(given.first())
name.select(use)
name.select(family & '!')
name.all(given.exists())
name.all(use.exists())
contact.telecom.value
contact.telecom[1].value
contact.name.given
contact.where(telecom.exists()).telecom.value.first()
contact.where(telecom.count() > 1).telecom.value
telecom.where(system = 'phone').value
telecom.where(rank > 1).value
telecom.where(rank >= 1 and system != 'phone').value
telecom.rank.first() + 1
identifier.where(type.coding.where(code = 'MR').exists()).value
identifier.where(type.coding.code contains 'MR').value
identifier.where(use != 'old').value
identifier.where((use = 'old').not()).value
identifier.where(type.where(coding.exists()).exists()).value
identifier.type.where(coding.code.first() = 'MR').coding.code
name.select(iif(use = 'official', family, given.first()))
name.select(given.where($this != 'A'))
name.given.where($this > 'B')
name.where(given.count() = 1 and use.empty()).given
contact.where(name.given contains 'K').telecom.value
contact.select(telecom.value.first() & '/' & name.given.first())
contact.name.select(given.first())
contact.exists(telecom.all(value.startsWith('k')))
address.line.select($this.length())
address.line.select($this.upper()).distinct()
name.family = name.family
name.given = 'Solo'
name.given != 'Solo'
name.family.first() = name.family.last()
name.family.first() in name.family
telecom.rank.where($this > 1)
telecom.rank.distinct().count() > 1
name.tail().given.first()
name.skip(1).take(1).family
name.last().given.last()
name.where(false).family
name.where(true).family
name.exists() implies active
(active | active.not()).allTrue()
name.select(use.exists()).anyTrue()
name.select(use.exists()).allFalse()
active.toInteger()
multipleBirth.ofType(integer).toDecimal()
id & id
birthDate.toString()
name.family.first().trim() + ''
name.first().given.first().replaceMatches('[A-C]', 'z')
active
active.not()
active and deceased.ofType(boolean)
active or deceased.ofType(boolean)
active xor deceased.ofType(boolean)
active implies deceased.ofType(boolean)
active = true
active != true
gender = 'female'
gender != 'female'
gender in ('female' | 'male')
gender.exists() and gender = 'male'
deceased.ofType(dateTime).exists()
deceased.exists()
multipleBirth.ofType(integer)
multipleBirth.ofType(integer) * 3
multipleBirth.ofType(integer) - 5
multipleBirth.ofType(integer) / 4
multipleBirth.ofType(integer) div 2
multipleBirth.ofType(integer) mod 2
iif(active, 'yes', 'no')
iif(gender.exists(), gender, 'unknown')
iif(active, name.given, name.family)
extension('u1').value.ofType(string)
extension('u2').extension('in').value.ofType(Coding).code
extension.where(url = 'u1').value.ofType(integer)
extension('none').exists()
name.family | name.given
name.given.combine(name.family).count()
name.family.first() & '-' & gender
name.first().family + gender
name.family.first().upper()
name.family.first().lower()
name.family.first().length()
name.family.first().startsWith('A')
name.family.first().endsWith('e')
name.family.first().contains('b')
name.family.first().matches('^A.e$')
name.family.first().replace('b', 'xx')
name.family.first().substring(1)
name.family.first().substring(1, 1)
name.family.first().substring(9)
name.family.last().indexOf('be')
name.family.first().indexOf('q')
birthDate = @1970-06-01
birthDate < @1975-01-01
birthDate > @1980-05-01
birthDate >= @1970-06-01
birthDate != @1970-06-01
deceased.ofType(dateTime) > @2019-01-01T00:00:00Z
deceased.ofType(dateTime) = @2020-01-01T11:00:00+01:00
{}
{} = 1
true
'text'
1 + 2 * 3
(1 + 2) * 3
7 div 2
7.5 / 2
10 mod 3
2 > 1 and 1 < 2
telecom.rank.first().toString()
'12'.toInteger()
'x'.toInteger()
(1.5).round(0)
(-1.5).abs()
(2.7).floor()
(2.1).ceiling()
(-2.7).truncate()
""".strip().split("\n")
ON_OBSERVATIONS = """
value.ofType(Quantity).value
value.ofType(Quantity).value > 7
value.ofType(Quantity).value + 1
value.ofType(integer).abs()
value.ofType(string)
value.exists()
value is Quantity
value.ofType(boolean)
value.ofType(boolean).exists()
code.coding.code
code.coding.code.count()
code.coding.where(code = 'b').system
category.coding.code
category.coding.code.first()
category.coding.code.last()
category.first().coding.first().code
category.where(coding.code = 'x').coding.code
category.where(coding.where(code = 'z').exists()).coding.code
component.value.ofType(Quantity).value
component.where(value.ofType(Quantity).value > 1).value.ofType(Quantity).value
component.where(value.exists().not()).count()
component.value.ofType(string)
effective.ofType(dateTime) > @2020-01-30
effective.ofType(dateTime).combine(effective.ofType(Period).start).first()
status = 'final' and value.ofType(integer) < 0
""".strip().split("\n")


def ours(resource_type, resources, path):
    column = {"name": "c", "path": path, "collection": True}
    view = {"resource": resource_type, "select": [{"column": [column]}]}
    return compile_view(view).collect(resources)["c"].to_list()


def theirs(resources, path):
    return [plain(fhirpathpy.evaluate(resource, path, {}, r4)) for resource in resources]


def plain(values):
    return [json.loads(json.dumps(value, default=float)) for value in values]


@pytest.mark.parametrize("path", ON_PATIENTS)
def test_patients_agree(path):
    assert ours("Patient", PATIENTS, path) == theirs(PATIENTS, path)


@pytest.mark.parametrize("path", ON_OBSERVATIONS)
def test_observations_agree(path):
    assert ours("Observation", OBSERVATIONS, path) == theirs(OBSERVATIONS, path)
