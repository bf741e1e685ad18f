"""Expressions for dates, holidays and ages as notes write them, in the syntax of Rust.

Boundaries are of ASCII, as in ``beside``. What a group holds is found; an alternative without a group takes
what only looks like one of the others.
"""

from __future__ import annotations

from typing import Final

__all__ = ["AGED", "DAYS", "HOLIDAYS", "WEEKDAY_AFTER", "WEEKDAY_BEFORE"]

_MONTH: Final = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)"
_UPPER_MONTH: Final = (
    r"(?:JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
)
_LONG_MONTH: Final = (
    r"(?i-u:january|february|march|april|may|june|july|august|september|october|november|december)"
)
_D: Final = r"(?:0?[1-9]|[12][0-9]|3[01])"
_DD: Final = r"(?:0[1-9]|[12][0-9]|3[01])"
_M: Final = r"(?:0?[1-9]|1[0-2])"
_MM: Final = r"(?:0[1-9]|1[0-2])"
_Y: Final = r"(?:19|20)[0-9]{2}"
_ORDINAL: Final = (
    r"(?i-u:(?:twenty|thirty)[ -](?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth)"
    r"|first|second|third"
    r"|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|thirteenth|fourteenth"
    r"|fifteenth|sixteenth"
    r"|seventeenth|eighteenth|nineteenth|twentieth|thirtieth)"
)

DAYS: Final = (
    rf"(?-u:\b)(?i-u:on|since|until|till|from|by|before|after|dated|of|through|thru|to|and|dos|doa|due"
    rf"|seen|visit|started|stopped)[: ]+"
    rf"({_M}[/]{_D})(?:[ ,.;)\n]|$)"
    rf"|(?-u:\b)((?:{_MONTH}[a-z]*\.?|March|April|June|July) {_D}(?:st|nd|rd|th)?)(?-u:\b)"
    rf"|(?-u:\b)({_D}(?:st|nd|rd|th)?[ -](?:of )?{_MONTH}[a-z]*)(?-u:\b)"
    rf"|(?-u:\b)({_M}[-.]{_D}[-.](?:{_Y}|[0-9]{{2}}))(?-u:\b)"
    rf"|(?-u:\b)({_Y}[-/.]{_M}[-/.]{_D})(?-u:\b)"
    rf"|(?-u:\b)({_M}/{_Y}|{_MM}-{_Y})(?-u:\b)"
    rf"|(?-u:\b)({_Y}-{_MM})(?:[^-0-9A-Za-z/]|$)"
    rf"|(?-u:\b)({_Y}{_MM}{_DD}(?:(?:[01][0-9]|2[0-3])[0-5][0-9](?:[0-5][0-9])?)?)(?-u:\b)"
    rf"|(?-u:\b)({_DD}{_UPPER_MONTH}(?:{_Y}|[0-9]{{2}}))(?-u:\b)"
    rf"|(?-u:\b)({_ORDINAL} (?:day )?of {_LONG_MONTH}|{_LONG_MONTH} (?:the )?{_ORDINAL})(?-u:\b)"
    rf"|(?-u:\b)((?i-u:spring|summer|fall|autumn|winter|springtime|summertime))(?: of)?,? {_Y}(?-u:\b)"
    rf"|(?-u:\b)(Q[1-4])[ /-]?(?:of )?{_Y}(?-u:\b)"
    rf"|(?-u:\b)((?i-u:weeks?|wk|kw) [0-9]{{1,2}})(?:,| of|/)? ?{_Y}(?-u:\b)"
)

_OWN_DAY: Final = (
    r"christmas|x-?mas|thanksgiving|new year'?s?|independence|labou?r|memorial|veteran'?s'?"
    r"|armistice|valentine'?s?"
    r"|mother'?s|father'?s|president'?s'?|columbus|martin luther king(?:,? jr\.?)?|mlk|boxing"
    r"|st\.? patrick'?s"
    r"|saint patrick'?s|groundhog|election|inauguration|indigenous peoples'?|all saints'?|canada"
    r"|australia|bastille"
)
_FEAST: Final = (
    r"christmas|x-?mas|thanksgiving|easter|hall?owe'?en|hanukkah|chanukah|ramadan|diwali|passover|yom kippur"
    r"|rosh hashanah|juneteenth|kwanzaa|mardi gras|good friday|ash wednesday|palm sunday"
    r"|cinco de mayo|black friday"
    r"|cyber monday|super ?bowl(?: sunday)?|eid al[- ](?:fitr|adha)|(?:chinese|lunar) new year|fourth of july"
    r"|nine[- ]eleven|weihnachten|heiligabend|silvester|neujahr|ostern|pfingsten"
)
HOLIDAYS: Final = (
    # Eponyms, and rashes like trees.
    r"(?-u:\b)(?i-u:christmas (?:disease|factor|tree)|easter seals?)(?-u:\b)"
    rf"|(?-u:\b)((?i-u:(?:{_OWN_DAY}) (?:day|eve|morning|weekend|week|holidays?)|{_FEAST}))(?-u:\b)"
    r"|(?-u:\b)(9/11)(?:[^/0-9A-Za-z]|$)"
)
"""Days of which everyone knows the date: beside one that was moved they would tell by how many days."""

_WEEKDAY: Final = r"(?i-u:mon|tues?|wed|wednes|thu|thurs?|fri|sat|satur|sun)(?i-u:day)?s?\.?"
WEEKDAY_BEFORE: Final = rf"((?-u:\b){_WEEKDAY},?[ \t]{{0,2}}\(?(?:the )?)$"
WEEKDAY_AFTER: Final = rf"^(,?[ \t]{{0,2}}\(?{_WEEKDAY}\)?)(?:[^A-Za-z]|$)"
"""Days of the week beside a date: they would tell something of the days by which it was moved."""

_OLD: Final = r"(?:9[0-9]|1[01][0-9])"
_UNITS: Final = r"one|two|three|four|five|six|seven|eight|nine"
_OLD_WORDS: Final = (
    rf"(?i-u:ninety(?:[- ](?:{_UNITS}))?|(?:a|one)[- ]hundred(?:(?:[- ]and)?[- ](?:{_UNITS}|ten"
    rf"|eleven|twelve))?)"
)
AGED: Final = (
    rf"(?-u:\b)({_OLD}[ -]?(?i-u:y[-. /]?o\b\.?|years?[ -]old|yrs?[ -]old|year-old|yo|y/o))(?:[^A-Za-z0-9]|$)"
    rf"|(?i-u:(?-u:\b)aged?:? |(?-u:\b)turn(?:ed|s|ing) )((?:{_OLD}|{_OLD_WORDS}))(?-u:\b)"
    rf"|(?:^|[^-0-9A-Za-z.])({_OLD} ?(?i-u:yrs?|years?))(?-u:\b)"
    rf"|(?-u:\b)({_OLD} ?[MF])(?: (?i-u:with|w/|who|presenting|presents|presented|c/o|s/p|p/w|h/o|hx"
    rf"|pmh|admitted"
    r"|brought|here|from|found)|,)"
    rf"|(?-u:\b)({_OLD_WORDS}[- ](?i-u:years?|yrs?|y[./]?o))(?-u:\b)"
    rf"|(?-u:\b)({_OLD}(?:st|nd|rd|th)) (?i-u:birthday|year)"
    rf"|(?-u:\b)((?i-u:ninetieth|ninety[- ](?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth)"
    r"|(?:one[- ])?hundredth)) (?i-u:birthday)"
    r"|(?-u:\b)((?i-u:(?:super)?centenarian|nonagenarian)s?)(?-u:\b)"
    r"|(?-u:\b)(?i-u:(?:her|his|their|the|mid|late|early)[- ])((?i-u:nineties|90'?s))(?-u:\b)"
)
