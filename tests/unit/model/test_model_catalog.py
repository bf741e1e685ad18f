"""The catalog finds its entries and nothing else."""

import pytest

from cohortflow.errors import CatalogError
from cohortflow.model import Catalog


@pytest.fixture
def catalog(tmp_path):
    folder = tmp_path / "catalog" / "views"
    folder.mkdir(parents=True)
    (folder / "patient.json").write_text('{"name": "patient"}')
    (folder / "broken.json").write_text('{"name": ')
    (folder / "list.json").write_text("[]")
    (folder / "policy.yaml").write_text("name: policy\n")
    (folder / "README.md").write_text("# Views\n")
    (tmp_path / "secret.json").write_text('{"secret": 1}')
    return Catalog(tmp_path / "catalog")


def test_entries_are_json_or_yaml(catalog):
    assert catalog.names("views") == ["broken", "list", "patient", "policy"]
    assert catalog.names("valuesets") == []
    assert catalog.load("views", "patient") == {"name": "patient"}
    assert catalog.load("views", "policy") == {"name": "policy"}


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("pateint", "Did you mean 'patient'?"),
        ("zzz", "Known: broken, list, patient, policy."),
        ("", "Known: broken, list, patient, policy."),
        ("../../secret", "Known: broken, list, patient, policy."),
        ("README", "Known: broken, list, patient, policy."),
    ],
)
def test_what_is_no_entry_is_refused_with_what_is(catalog, name, remedy):
    with pytest.raises(CatalogError) as caught:
        catalog.load("views", name)
    assert caught.value.message == f"No entry '{name}' in the catalog's views."
    assert caught.value.remedy == remedy


@pytest.mark.parametrize("name", ["broken", "list"])
def test_a_malformed_entry_is_named(catalog, name):
    with pytest.raises(CatalogError) as caught:
        catalog.load("views", name)
    assert caught.value.place.endswith(f"views/{name}.json")
    assert caught.value.remedy == "Mend the file."


def test_the_default_is_the_projects(project, project_copy):
    assert Catalog.default() == project_copy.catalog
    assert Catalog.default() != project.catalog
