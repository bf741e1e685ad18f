"""Names, places and clinics that the synthetic patients draw from.

Cities, states, ZIP codes and area codes are real, so that geographic rules meet what they are made for;
several ZIP codes belong to the three-digit areas with fewer than 20,000 inhabitants that HIPAA Safe Harbor
withholds. Names are common ones, freely combined; the clinics are invented.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CITIES",
    "CLINICS",
    "FAMILY_NAMES",
    "FEMALE_NAMES",
    "LANGUAGES",
    "MALE_NAMES",
    "RACES",
    "STREETS",
    "City",
    "Clinic",
]

FEMALE_NAMES = (
    "Abigail", "Alice", "Amelia", "Angela", "Anna", "Beatriz", "Carmen", "Charlotte", "Chloe", "Diana",
    "Dorothy", "Elena", "Elizabeth", "Emma", "Evelyn", "Fatima", "Grace", "Hannah", "Helen", "Inés",
    "Isabella", "Jasmine", "Julia", "Karen", "Keisha", "Latoya", "Laura", "Linda", "Lucía", "Margaret",
    "Maria", "Mei", "Nadia", "Naomi", "Olivia", "Patricia", "Priya", "Rachel", "Renée", "Rosa",
    "Ruth", "Sarah", "Sofia", "Susan", "Teresa", "Victoria", "Yuki", "Zoë",
)  # fmt: skip
MALE_NAMES = (
    "Aaron", "Ahmed", "Andrew", "Anthony", "Arjun", "Benjamin", "Brian", "Carlos", "Charles", "Daniel",
    "David", "DeShawn", "Diego", "Edward", "Elijah", "Ethan", "Francisco", "Frank", "George", "Hiroshi",
    "Isaac", "Jack", "Jamal", "James", "Jesús", "John", "José", "Joseph", "Kenneth", "Kevin",
    "Liam", "Luis", "Marcus", "Michael", "Mohammed", "Noah", "Oscar", "Patrick", "Peter", "Raymond",
    "Robert", "Samuel", "Thomas", "Tyrone", "Vikram", "Wei", "William", "Zachary",
)  # fmt: skip
FAMILY_NAMES = (
    "Adams", "Aguilar", "Anderson", "Baker", "Banerjee", "Begay", "Bennett", "Brooks", "Brown", "Campbell",
    "Carter", "Castillo", "Chen", "Clark", "Cohen", "Coleman", "Collins", "Cooper", "Cruz", "D'Angelo",
    "Davis", "Diaz", "Edwards", "Evans", "Fischer", "Flores", "Foster", "García", "Gomez", "Gonzalez",
    "Gray", "Green", "Gupta", "Gutiérrez", "Hall", "Harris", "Hernandez", "Hughes", "Jackson", "Jenkins",
    "Johnson", "Jones", "Kelly", "Kim", "King", "Kowalski", "Lee", "Lewis", "Lin", "Lopez",
    "Martin", "Martinez", "McCarthy", "Mendoza", "Miller", "Mitchell", "Moore", "Morales", "Morgan", "Muñoz",
    "Murphy", "Nakamura", "Nelson", "Nguyen", "O'Brien", "O'Connor", "Okafor", "Ortiz", "Parker", "Patel",
    "Perez", "Peterson", "Phillips", "Price", "Ramirez", "Reed", "Reyes", "Richardson", "Rivera", "Roberts",
    "Rodriguez", "Rogers", "Rossi", "Russell", "Sanchez", "Schmidt", "Scott", "Shah", "Singh", "Smith",
    "Sullivan", "Taylor", "Thompson", "Torres", "Tran", "Turner", "Walker", "Washington", "White", "Wright",
)  # fmt: skip
STREETS = (
    "Maple Street", "Oak Avenue", "Cedar Lane", "Washington Street", "Lakeview Drive", "Main Street",
    "Park Avenue", "Hillcrest Road", "Chestnut Street", "River Road", "Sunset Boulevard", "Church Street",
    "Elm Street", "Highland Avenue", "Prospect Street", "Willow Court",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class City:
    """A place to live.

    Attributes:
        name: City.
        state: USPS code of the state.
        postal_code: A ZIP code of the city.
        area_code: Its telephone area code.
    """

    name: str
    state: str
    postal_code: str
    area_code: str


CITIES = tuple(
    City(*row)
    for row in (
        ("Boston", "MA", "02118", "617"), ("Worcester", "MA", "01608", "508"),
        ("Springfield", "MA", "01103", "413"), ("Providence", "RI", "02903", "401"),
        ("Hartford", "CT", "06103", "860"), ("Brooklyn", "NY", "11201", "718"),
        ("Buffalo", "NY", "14202", "716"), ("Philadelphia", "PA", "19103", "215"),
        ("Pittsburgh", "PA", "15213", "412"), ("Baltimore", "MD", "21201", "410"),
        ("Richmond", "VA", "23220", "804"), ("Charlotte", "NC", "28202", "704"),
        ("Atlanta", "GA", "30303", "404"), ("Miami", "FL", "33130", "305"),
        ("Cleveland", "OH", "44113", "216"), ("Detroit", "MI", "48226", "313"),
        ("Chicago", "IL", "60614", "312"), ("Madison", "WI", "53703", "608"),
        ("Minneapolis", "MN", "55401", "612"), ("Kansas City", "MO", "64108", "816"),
        ("New Orleans", "LA", "70115", "504"), ("Houston", "TX", "77004", "713"),
        ("San Antonio", "TX", "78205", "210"), ("Denver", "CO", "80203", "303"),
        ("Phoenix", "AZ", "85004", "602"), ("Salt Lake City", "UT", "84101", "801"),
        ("Los Angeles", "CA", "90012", "213"), ("Sacramento", "CA", "95814", "916"),
        ("Portland", "OR", "97205", "503"), ("Seattle", "WA", "98104", "206"),
        # Areas of fewer than 20,000 inhabitants.
        ("Walpole", "NH", "03608", "603"), ("Canaan", "VT", "05903", "802"),
        ("Two Harbors", "MN", "55616", "218"), ("Valentine", "NE", "69201", "402"),
        ("Rawlins", "WY", "82301", "307"), ("Jackson", "WY", "83001", "307"),
        ("Socorro", "NM", "87801", "575"), ("Tucumcari", "NM", "88401", "575"),
        ("Ely", "NV", "89301", "775"), ("Pahrump", "NV", "89048", "775"),
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Clinic:
    """A place that gives care; it keeps one offset from UTC all year.

    Attributes:
        name: Its name.
        city: Where it is.
        zone: Offset from UTC in minutes.
    """

    name: str
    city: City
    zone: int


CLINICS = (
    Clinic("Harbor Primary Care", CITIES[0], -300),
    Clinic("Elmwood Family Medicine", CITIES[6], -300),
    Clinic("Peachtree Internal Medicine", CITIES[12], -300),
    Clinic("Lakeshore Community Clinic", CITIES[16], -360),
    Clinic("Front Range Health Center", CITIES[23], -420),
    Clinic("Pacific Crest Medical Group", CITIES[29], -480),
)

RACES = (
    ("2106-3", "White"),
    ("2054-5", "Black or African American"),
    ("2028-9", "Asian"),
    ("1002-5", "American Indian or Alaska Native"),
    ("2076-8", "Native Hawaiian or Other Pacific Islander"),
)
"""OMB race categories (CDC Race and Ethnicity), most frequent first."""

LANGUAGES = (
    ("en", "English"),
    ("es", "Spanish"),
    ("zh", "Chinese"),
    ("vi", "Vietnamese"),
    ("fr", "French"),
)
"""BCP 47 language codes, most frequent first."""
