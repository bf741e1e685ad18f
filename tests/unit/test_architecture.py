"""House rules that the import linter cannot see."""

import ast
import importlib
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "include" / "cohortflow"
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [*MODULES, *ROOT.glob("dags/*.py"), *ROOT.glob("plugins/*.py"), *ROOT.glob("tools/**/*.py")]


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def trees():
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def defined_in(tree):
    """Return the names that a module binds at its top level."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(
                part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)
            )
    return names


def exported_by(tree):
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
        ):
            return ast.literal_eval(node.value)
    return None


def test_all_names_what_a_module_offers(trees):
    for path in MODULES:
        exported = exported_by(trees[path])
        if path.name == "__init__.py" and exported is None:
            assert not defined_in(trees[path]) - {"annotations", "__version__"}, name_of(path)
            continue
        assert exported is not None, f"{name_of(path)} has no __all__"
        missing = set(exported) - defined_in(trees[path])
        if "__getattr__" in defined_in(trees[path]):  # a package that imports its kernels on demand
            package = importlib.import_module(".".join(path.parent.relative_to(PACKAGE.parent).parts))
            missing = {name for name in missing if not hasattr(package, name)}
        assert missing == set(), name_of(path)
        assert len(exported) == len(set(exported)), name_of(path)


def test_modules_stay_small():
    assert {name_of(path): n for path in SOURCES if (n := path.read_text().count("\n")) > 450} == {}


def test_names_say_what_is_inside():
    assert [name_of(path) for path in SOURCES if path.stem in {"utils", "helpers", "common", "manager"}] == []


def test_every_module_and_public_definition_is_documented(trees):
    bare = []
    for path in SOURCES:
        nodes = [trees[path], *(n for n in trees[path].body if isinstance(n, ast.FunctionDef | ast.ClassDef))]
        bare += [
            f"{name_of(path)}:{getattr(node, 'name', '')}"
            for node in nodes
            if not getattr(node, "name", "").startswith("_") and not ast.get_docstring(node)
        ]
    assert bare == []


def test_airflows_plugin_folder_holds_one_file():
    assert [path.name for path in (ROOT / "plugins").rglob("*.py")] == ["cohortflow_plugin.py"]


def test_dag_files_stay_thin():
    for path in (ROOT / "dags").glob("*.py"):
        assert path.read_text().count("\n") < 40, name_of(path)


def test_no_path_of_a_machine_is_in_the_code():
    found = [
        name_of(path)
        for path in SOURCES
        if re.search(r"[\"' (](/work/|/home/|/root/|/Users/)", path.read_text())
    ]
    assert found == []


def test_messages_name_documents_that_exist(trees):
    named = {
        (match, name_of(path))
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for match in re.findall(r"docs/[\w/-]+\.md", node.value)
    }
    assert {(document, path) for document, path in named if not (ROOT / document).is_file()} == set()


def test_what_plans_are_made_of_needs_no_data_library():
    """DAG files are parsed through these modules every few seconds."""
    modules = ["workflow.plan", "workflow.graph", "workflow.run", "workflow.runner", "workflow.schema"]
    code = (
        f"import importlib, json, sys\nfor name in {modules}: importlib.import_module('cohortflow.' + name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"polars", "pyarrow", "great_expectations", "deltalake", "obstore", "httpx", "numpy", "airflow"}
    assert heavy.isdisjoint(json.loads(done.stdout))


def test_test_files_have_names_of_their_own():
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_every_package_has_tests_of_its_own():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"report"}
    folders = {path.name for path in (ROOT / "tests" / "unit").iterdir() if path.is_dir()} | {
        "airflow" if any((ROOT / "tests" / "dags").glob("test_*.py")) else ""
    }
    assert packages - folders == set()
