"""Expressions for names, places and numbers by what stands beside them, in the syntax of Rust.

Names of persons who are not in the raw zone have no form. They are found after a title or a word such as
``daughter`` or ``signed by``, and before ``MD``. What a group holds is found.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "AGENT",
    "CALLED",
    "CREDITS",
    "DIGITS",
    "HANDLES",
    "HOMES",
    "LETTERED",
    "MASKED",
    "NAMED_BY_RELATION",
    "NUMBERED",
    "OBSCURED",
    "PLACES",
    "RELATION_BY_NAME",
    "ROLE",
    "SITES",
    "TITLED",
]

# Boundaries and cases of ASCII: the Unicode ones make the engine leave its fast path. So do the classes of
# all letters, for which those of the scripts with capitals stand: Latin, Greek, Cyrillic.
_UPPER: Final = r"[A-Z\xC0-\xD6\xD8-\xDE\x{100}-\x{17F}\x{370}-\x{3AB}\x{400}-\x{42F}\x{1E00}-\x{1EFF}]"
_LETTER: Final = r"A-Za-z\xAA\xB5\xBA\xC0-\xD6\xD8-\xF6\xF8-\x{24F}\x{370}-\x{52F}\x{1E00}-\x{1FFF}"
_NAME: Final = rf"(?:(?-u:\b){_UPPER}\.[ ]?)?{_UPPER}[{_LETTER}'\x{{2019}}-]+"
_PARTICLES: Final = (
    r"(?:(?:van|von|de|der|den|la|del|dos|da|di|le|el|al|bin|ter|ten|zu)[ ])*(?:[dl]['\x{2019}])?"
)
_NAMES: Final = rf"{_NAME}(?:[ ](?:{_UPPER}\.?[ ])?(?:(?:van|von|de|der|la|del|dos|da|di)[ ])*{_NAME}){{0,2}}"
_GAP: Final = r"[ \t]{1,3}"

_RELATIVES: Final = (
    r"(?i-u:wife|husband|spouse|partner|mother|father|mom|mum|dad|son|daughter|dtr|sister|brother|aunt|uncle"
    r"|niece|nephew|cousin|sibling|parent|hubby|widow|widower"
    r"|grand(?:mother|father|son|daughter|child|ma|pa|dad)|(?:girl|boy)?friend|fiancee?|neighbou?r|roommate"
    r"|caregiver|carer|caretaker|guardian|companion|(?:baby)?sitter|nanny|landlord|landlady"
    r"|co-?worker|colleague"
    r"|teacher|step(?:mother|father|son|daughter)|(?:son|daughter|mother|father|sister|brother)-in-law|twin"
    r"|child|aide|witness|informant)"
)
_SEVERAL: Final = (
    r"(?i-u:sons|daughters|brothers|sisters|siblings|children|kids|twins|parents|grandparents|grandchildren"
    r"|grandsons|granddaughters|nieces|nephews|cousins|friends|neighbou?rs)"
)
_WHOSE: Final = r"(?i-u:(?:the )?(?:patient|pt)'s |the |his |her |their |my )?"
NAMED_BY_RELATION: Final = (
    rf"(?-u:\b){_RELATIVES}(?:'s)?(?:,| is| was|:|,? named|,? called| name| name is| name was"
    rf"| name:)?,?{_GAP}"
    rf"\(?({_NAMES})"
    rf"|(?-u:\b){_RELATIVES}[ ]\(({_NAMES})"
    rf"|(?-u:\b){_RELATIVES} of [0-9a-z-]{{1,12}} (?:years|yrs|months),? ({_NAMES})"
    rf"|(?-u:\b){_SEVERAL}(?:,|:| named| are| were)?,? \(?({_NAME}(?:(?:, and | and |, | & "
    rf"|/){_NAME}){{0,5}})"
)
RELATION_BY_NAME: Final = (
    rf"({_NAMES})(?:,| \(|, \(| is| was) ?{_WHOSE}(?:older |younger |elder |late |ex-"
    rf"|former )?{_RELATIVES}(?-u:\b)"
)
CALLED: Final = (
    r"(?-u:\b)(?i-u:named|called|goes by|known as|a\.k\.a\.|aka|nee|maiden name(?: is)?|nickname(?:"
    r" is)?|preferred name(?: is)?|formerly)[: ]+"
    rf"[\"'\x{{201c}}]?({_NAMES})"
)
_DID: Final = (
    r"(?:signed|dictated|seen|written|authored|reviewed|entered|verified|examined|performed|evaluated"
    r"|interpreted|read"
    r"|transcribed|referred|reported|attested|staffed|supervised|assisted|accompanied|prescribed"
    r"|ordered|provided|completed|administered|obtained|placed|witnessed|documented|edited|cosigned|co-signed"
    r"|approved|managed|followed|treated|called|notified|scribed|collected)"
    r" (?:electronically )?by"
)
ROLE: Final = (
    rf"(?-u:\b)(?i-u:{_DID}|(?:discussed|spoke|met|staffed|talked|reviewed|conferred) with|per|d/w|paged"
    rf"|attn|cc|(?:e-?|electronically )?signed|dictated|transcribed|scribe|signature|attestation"
    rf"|recorder|reporter"
    r"|(?:(?:attending|referring|consulting|primary care|ordering|treating) )?(?:physician|provider"
    r"|surgeon|doctor"
    r"|clinician|resident|nurse|attending|author|pcp|consultant|therapist|pharmacist|interpreter|social"
    r" worker"
    r"|case manager|midwife|dietitian)"
    r"|(?:(?:patient|pt|full|last|first|family|given|contact|guarantor|subscriber|employee"
    r"|legal|mother|father|spouse)(?:'s)? )?name"
    r"|patient|pt|(?:emergency|alternate|primary) contact|next of kin|nok|poa|health care proxy|proxy"
    r"|guarantor"
    r"|subscriber)(?: (?:is|was))?[ \t]*[:;#-]{1,2}[ \t]*"
    rf"((?:(?:Dr|Mr|Mrs|Ms)\.? )?(?:{_UPPER}[{_LETTER}'\x{{2019}}-]+,[ ])?{_NAMES})"
    rf"|/s/[ \t]{{0,3}}({_NAMES})"
)
AGENT: Final = (
    rf"(?-u:\b)(?i-u:{_DID}|(?:discussed|spoke|talked|met) with|nurse|officer|judge|rabbi|pastor|d/w"
    rf"|paged|attorney"
    rf"|attention|attn|per)[ ]((?:Dr\.? )?{_NAMES})"
)
_AFTER_TITLE: Final = r"(?:\.[ \t]{0,3}\n?[ \t]{0,3}|[ \t]{1,3}|[ \t]?\n[ \t]{0,3})"
_FAMILY: Final = (
    rf"{_PARTICLES}{_UPPER}(?:[{_LETTER}'\x{{2019}}-]+"
    rf"|\.)(?:[ ](?:{_UPPER}\.?[ ])?{_PARTICLES}{_NAME}){{0,2}}"
)
TITLED: Final = (
    rf"(?-u:\b)(?i-u:drs|doctors|messrs){_AFTER_TITLE}({_FAMILY}(?:(?:, and | and |, | & "
    rf"|/){_FAMILY}){{0,4}})"
    r"|(?-u:\b)(?:(?i-u:dr|mrs|mr|ms|mx|miss|prof|professor|doctor|nurse|herr|frau)|DR|MRS?|MS)"
    rf"{_AFTER_TITLE}({_FAMILY})"
)
HOMES: Final = (
    rf"(?-u:\b)(?i-u:lives?|living|lived|resid(?:es?|ing)|moved|relocated|born|raised|grew up|works?"
    rf"|working|worked|employed|retired|travell?ed"
    rf"|visiting|transferred|flew|drove|native)(?: (?:in|at|near|to|from|of|by|for|outside))[ ](?:the"
    rf" )?({_NAMES}(?:, (?:{_UPPER}{_UPPER}|{_NAME}))?)"
)
PLACES: Final = (
    rf"(?-u:\b)((?:{_UPPER}[{_LETTER}.'\x{{2019}}-]+ ){{1,4}}(?:Hospital|Medical Center"
    rf"|Medical Centre|Health Center"
    r"|Health System|Nursing Home|Rehabilitation Center"
    r"|Hospice|University|High School|Elementary School|Middle School|Infirmary|Clinic|Family Practice"
    r"|Medical Group|Associates))(?-u:\b)"
)
DIGITS: Final = r"((?:(?-u:\b)[0-9]{3}[-. ]|\([0-9]{3}\)[-. ]?)[0-9]{3}[-. ][0-9]{4})(?-u:\b)"
MASKED: Final = (
    rf"([{_LETTER}0-9]+[*\x{{2022}}\x{{2588}}#]{{2,}}[{_LETTER}0-9]*"
    rf"|[*\x{{2022}}\x{{2588}}#]{{2,}}[-. ]?[{_LETTER}0-9]+"
    r"|(?-u:\b)[xX]{3}[- ]?[xX]{2}[- ]?[0-9]{4}(?-u:\b))"
    r"|(?-u:\b)(?i-u:last (?:four|4)(?: digits)?(?: of (?:the )?(?:ssn|social(?: security)?))?)[: ]{1,2}"
    r"([0-9]{4})(?-u:\b)"
)
NUMBERED: Final = (
    r"(?-u:\b)(?i-u:account|acct|policy|member|case|claim|chart|file|record|reference|ref|confirmation|badge"
    r"|licen[cs]e|permit|passport|certificate|serial|employee|student|voucher|invoice)"
    r"(?i-u: (?:no|number|num|nr|id)\b\.?|[ ]?#)[:# ]{0,3}([A-Za-z]{0,4}-?[0-9][0-9A-Za-z-]{3,}"
    r"|[A-Za-z]-[0-9]{3,})"
    r"|(?-u:\b)(?i-u:zip)(?i-u: code)?[: ]{1,2}([0-9]{9})(?-u:\b)"
)
CREDITS: Final = (
    rf"((?:(?-u:\b){_UPPER}[ ])?{_NAMES}),? (?:M\.?D|D\.?O|R\.?N|N\.?P|P\.?A(?:-C)?|Ph\.?D|DDS|LPN"
    rf"|CRNA|APRN|FNP"
    r"|MBBS|Pharm\.?D|LCSW|DPM|RPh|DNP|MSW|CNA)(?-u:\b)"
)
SITES: Final = (
    r"(?-u:\b)((?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,4}(?:com|org|net|edu|gov|info|biz|example)"
    r"(?:/[^ \t\r\n<>\"]*[^ \t\r\n<>\",.;:!?)'\]])?)(?-u:\b)"
)
OBSCURED: Final = r"([A-Za-z0-9._%+-]+ ?[\[\(]at[\]\)] ?[A-Za-z0-9.-]+)"
HANDLES: Final = (
    r"(?-u:\b)(?i-u:twitter|instagram|insta|facebook|snapchat|tiktok|skype|venmo|whatsapp|telegram|linkedin"
    r"|username|screen name)(?i-u: handle| name| id| account)?(?: is"
    r"|:)?[ :]{1,2}(@?[A-Za-z0-9_]*[@_0-9.][A-Za-z0-9_.]*[A-Za-z0-9_])"
)
LETTERED: Final = r"(?:^|[^0-9A-Za-z+/_-])([0-9A-Za-z+/_-]{40,}={0,2})"
"""What may be a text in base64."""
