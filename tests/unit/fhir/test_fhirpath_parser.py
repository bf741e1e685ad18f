import pytest

from cohortflow.errors import FhirPathError
from cohortflow.fhir.fhirpath import TokenKind, parse, tokenize
from cohortflow.fhir.fhirpath import nodes as n


def show(node):  # noqa: PLR0911 - one return per kind of node
    """Write a tree with explicit parentheses."""
    match node:
        case n.Literal():
            return f"{node.value!r}{' ' + node.unit if node.unit else ''}" if node.value is not None else "{}"
        case n.Variable():
            return f"%{node.name}"
        case n.Special():
            return node.name
        case n.Member():
            return f"{show(node.source)}.{node.name}" if node.source else node.name
        case n.Call():
            call = f"{node.name}({', '.join(map(show, node.arguments))})"
            return f"{show(node.source)}.{call}" if node.source else call
        case n.Indexer():
            return f"{show(node.source)}[{show(node.index)}]"
        case n.Unary():
            return f"({node.operator}{show(node.operand)})"
        case n.TypeTest():
            return f"({show(node.operand)} {node.operator} {node.type_name})"
        case n.Binary():
            return f"({show(node.left)} {node.operator} {show(node.right)})"


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("name.given", "name.given"),
        ("1 + 2 * 3 - 4", "((1 + (2 * 3)) - 4)"),
        ("a & b = c and d or e implies f", "(((((a & b) = c) and d) or e) implies f)"),
        ("a or b xor c and d", "((a or b) xor (c and d))"),
        ("a | b = c | d", "((a | b) = (c | d))"),
        ("a in b and c contains d", "((a in b) and (c contains d))"),
        ("a = b in c", "((a = b) in c)"),
        ("a < b = c > d", "((a < b) = (c > d))"),
        ("a is FHIR.Quantity | b", "((a is FHIR.Quantity) | b)"),
        ("a + b as Quantity", "((a + b) as Quantity)"),
        ("-a.b + c", "((-a.b) + c)"),
        ("a.b[0].c", "a.b[0].c"),
        ("a.where(b = 'c').first()", "a.where((b = 'c')).first()"),
        (
            "a.contains('x') and b.is(Quantity) and c.as(string)",
            "((a.contains('x') and b.is(Quantity)) and c.as(string))",
        ),
        ("`div`.`a b`", "div.a b"),
        ("%name and %`a-b` and %'c d'", "((%name and %a-b) and %c d)"),
        ("$this.x = $index", "($this.x = $index)"),
        ("{} = {}", "({} = {})"),
        ("4 'mg' = 3 days", "(Decimal('4') mg = Decimal('3') days)"),
        ("@2020-01 < @2020-01-01T10:00:00.5+01:00", "('2020-01' < '2020-01-01T10:00:00.5+01:00')"),
        ("@T10:30 = a", "('10:30' = a)"),
        ("a // comment\n.b /* more */ .c", "a.b.c"),
        ("((a))", "a"),
        (r"'it\'s \u00e9\n'", repr("it's é\n")),
        ("1.50", "Decimal('1.50')"),
        ("iif(a, {}, b)", "iif(a, {}, b)"),
    ],
)
def test_precedence_and_forms(text, tree):
    assert show(parse(text)) == tree


@pytest.mark.parametrize(
    ("text", "message", "character"),
    [
        ("", "The expression is empty.", 1),
        ("name.", "The expression ends too early.", 6),
        ("name.where(use = )", "Unexpected ')'.", 18),
        ("name given", "Unexpected 'given'.", 6),
        ("name.where(a", "Expected ')', found the end.", 13),
        ("name[0", "Expected ']', found the end.", 7),
        ("'open", "A quoted text has no end.", 1),
        ('a = "b"', "Unexpected character '\"'.", 5),
        ("a ? b", "Unexpected character '?'.", 3),
        (r"'\q'", r"Unknown escape '\q'.", 1),
        ("a /* b", "A comment has no end.", 3),
        ("@20", "Not a date or time.", 1),
        ("a.$this", "Unexpected '$this'.", 3),
        ("a.and", "Unexpected 'and'.", 3),
        ("a is 'b'", "Unexpected 'b'.", 6),
    ],
)
def test_errors_name_the_character(text, message, character):
    with pytest.raises(FhirPathError) as caught:
        parse(text)
    assert caught.value.message == message
    assert caught.value.place == f"'{text}', character {character}"
    assert caught.value.remedy


def test_tokens_keep_their_offsets():
    tokens = tokenize("a.b >= @2020")
    assert [(token.text, token.at) for token in tokens] == [
        ("a", 0),
        (".", 1),
        ("b", 2),
        (">=", 4),
        ("2020", 7),
        ("", 12),
    ]
    assert tokens[4].kind is TokenKind.DATE
