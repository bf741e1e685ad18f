"""YAML that people write: faults are shown with their line and what to do."""

import textwrap

import pytest

from cohortflow.errors import StudyError
from cohortflow.workflow.document import Document, StrictModel, nearest, substitute


class Dish(StrictModel):
    name: str
    minutes: int = 10


class Menu(StrictModel):
    title: str
    dishes: tuple[Dish, ...] = ()
    by_day: dict[str, Dish] = {}  # noqa: RUF012  # pydantic copies it


def parse(text: str) -> Document:
    return Document.parse(textwrap.dedent(text), "menu.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "title: [a\n",
            "menu.yaml:2: Not valid YAML: did not find expected ',' or ']'.\n  -> Mend the syntax.",
            id="syntax",
        ),
        pytest.param(
            "title: a\ndishes:\n  - name: b\n    minutes: 1\n    name: c\n",
            "menu.yaml:5: The key 'name' stands twice.\n  -> Remove one of them; the first is in line 3.",
            id="duplicate key",
        ),
        pytest.param(
            "titel: a\n", "menu.yaml:1: Unknown key 'titel'.\n  -> Did you mean 'title'?", id="unknown key"
        ),
        pytest.param(
            "title: a\ndishes:\n  - name: b\n  - name: c\n    minuts: 2\n",
            "menu.yaml:5: Unknown key 'minuts'.\n  -> Did you mean 'minutes'?",
            id="unknown key in a list",
        ),
        pytest.param(
            "title: a\nby_day:\n  monday:\n    nam: b\n",
            "menu.yaml:4: Unknown key 'nam'.\n  -> Did you mean 'name'?",
            id="unknown key in a mapping",
        ),
        pytest.param(
            "title: a\nzzz: b\n",
            "menu.yaml:2: Unknown key 'zzz'.\n  -> Valid keys: by_day, dishes, title.",
            id="unknown key like none",
        ),
        pytest.param(
            "title: a\ndishes:\n  - name: b\n    minutes: soon\n",
            "menu.yaml:4: 'dishes.0.minutes': Input should be a valid integer,"
            " unable to parse string as an integer.\n  -> See docs/studies.md for what is allowed.",
            id="wrong type",
        ),
        pytest.param(
            "title: a\ndishes:\n  - minutes: 3\n",
            "menu.yaml:3: 'dishes.0.name': Field required.\n  -> See docs/studies.md for what is allowed.",
            id="missing key shows its parent",
        ),
        pytest.param(
            "- a\n",
            "menu.yaml: The file does not hold a mapping.\n  -> See docs/studies.md.",
            id="list",
        ),
        pytest.param(
            "", "menu.yaml: The file does not hold a mapping.\n  -> See docs/studies.md.", id="empty"
        ),
        pytest.param(
            "title: 2026-13-01\n",
            "menu.yaml: Not valid YAML: month must be in 1..12.\n  -> Mend the syntax.",
            id="date that does not exist",
        ),
        pytest.param(
            "title: a\x07\n",
            "menu.yaml: Not valid YAML: unacceptable character #x0007: control characters are not allowed.\n"
            "  -> Mend the syntax.",
            id="control character",
        ),
    ],
)
def test_faults_are_shown_with_line_and_remedy(text, message):
    with pytest.raises(StudyError) as caught:
        Document.parse(text, "menu.yaml").validate(Menu)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text", ["a: &x [*x]", "? [a, b]\n: 1", "a: !!python/object:os.system {}"], ids=["loop", "key", "tag"]
)
def test_hostile_yaml_is_refused_like_any_other_fault(text):
    with pytest.raises(StudyError, match="Not valid YAML"):
        Document.parse(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"nope\.yaml: Cannot be read \(FileNotFoundError\)"):
        Document.read(tmp_path / "nope.yaml")
    (tmp_path / "latin.yaml").write_bytes("title: Köln".encode("latin-1"))
    with pytest.raises(StudyError, match=r"latin\.yaml: Not UTF-8 text"):
        Document.read(tmp_path / "latin.yaml")


def test_place_falls_back_to_the_nearest_parent():
    document = parse(
        """\
        title: a
        dishes:
          - name: b
        """
    )
    assert document.place(("dishes", 0, "name")) == "menu.yaml:3"
    assert document.place(("dishes", 0, "minutes")) == "menu.yaml:3"
    assert document.place(("by_day", "monday")) == "menu.yaml:1"


def test_an_unknown_key_goes_before_the_missing_one_that_it_explains():
    with pytest.raises(StudyError, match=r"Unknown key 'nmae'.\n  -> Did you mean 'name'\?"):
        parse("title: a\ndishes: [{nmae: b}]").validate(Menu)


def test_validate_of_a_part_reports_its_place_in_the_whole():
    document = parse(
        """\
        first: 1
        menu:
          title: a
          dishs: []
        """
    )
    with pytest.raises(StudyError, match=r"menu\.yaml:4: Unknown key 'dishs'.\n  -> Did you mean 'dishes'"):
        document.validate(Menu, document.data["menu"], ("menu",))


PARAMETERS = {"age": 18, "names": ["a", "b"], "share": 0.5, "on": True, "none": None, "text": "${age}"}


class TestSubstitute:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("${age}", 18),
            ("${share}", 0.5),
            ("${on}", True),
            ("${none}", None),
            ("${names}", ["a", "b"]),
            ("${text}", "${age}"),
            ("age >= ${age}, ${share}", "age >= 18, 0.5"),
            ({"a": [{"b": "${age}"}]}, {"a": [{"b": 18}]}),
            (["${names}"], [["a", "b"]]),
            (7, 7),
            ("$age {age} ${}", "$age {age} ${}"),
        ],
    )
    def test_a_lone_reference_keeps_the_type_of_its_value(self, value, expected):
        assert substitute(value, PARAMETERS, parse("a: 1")) == expected

    def test_an_unknown_reference_names_its_line_and_the_nearest_parameter(self):
        document = parse(
            """\
            workflow:
              age:
                - at least ${aeg}
            """
        )
        with pytest.raises(StudyError) as caught:
            substitute(document.data, {"age": 1, "sex": 2}, document)
        assert str(caught.value) == (
            "menu.yaml:3: '${aeg}' is not a parameter of this template.\n  -> Did you mean 'age'?"
        )


def test_nearest_lists_all_names_where_none_is_near():
    assert nearest("prd", ["dev", "prod"], "environment") == "Did you mean 'prod'?"
    assert nearest("xyz", ["b", "a"], "environment") == "Valid environments: a, b."
    assert nearest("xyz", [], "environment") == "Valid environments: none."
