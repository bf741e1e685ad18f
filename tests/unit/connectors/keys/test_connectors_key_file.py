"""Key files: nobody else reads them, nothing is lost in them."""

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from cohortflow.connectors.keys import KeySet
from cohortflow.connectors.keys.file import (
    change_key_file,
    create_key_file,
    find_work_tree,
    read_key_file,
    write_public_file,
)
from cohortflow.errors import ConfigurationError

NOW = 1_772_352_000
HOUR = 3600


@pytest.fixture
def key_set():
    return KeySet.generate("ES384", NOW)


@pytest.fixture
def path(tmp_path, key_set):
    path = tmp_path / "keys.json"
    create_key_file(path, key_set)
    return path


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def names(folder):
    return sorted(item.name for item in folder.iterdir())


@pytest.mark.parametrize("umask", [0o000, 0o277])
def test_a_new_file_is_its_owners_alone_whatever_the_umask(tmp_path, key_set, umask):
    before = os.umask(umask)
    try:
        create_key_file(tmp_path / "keys.json", key_set)
    finally:
        os.umask(before)
    assert mode(tmp_path / "keys.json") == 0o600
    assert read_key_file(tmp_path / "keys.json") == key_set


def test_what_exists_is_never_overwritten(path, key_set):
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="never overwritten"):
        create_key_file(path, KeySet.generate("ES384", NOW))
    assert path.read_bytes() == before


def test_a_link_is_not_followed_to_a_new_file(tmp_path, key_set):
    (tmp_path / "keys.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ConfigurationError):
        create_key_file(tmp_path / "keys.json", key_set)
    assert not (tmp_path / "elsewhere.json").exists()


@pytest.mark.parametrize("git", ["folder", "file"])
def test_git_work_trees_are_refused(tmp_path, key_set, git):
    tree = tmp_path / "project"
    (tree / "deep").mkdir(parents=True)
    # A linked work tree has a file of this name.
    (tree / ".git").mkdir() if git == "folder" else (tree / ".git").write_text("gitdir: elsewhere")
    path = tree / "deep" / "keys.json"
    with pytest.raises(ConfigurationError, match="git work tree") as caught:
        create_key_file(path, key_set)
    assert str(tree) in str(caught.value)
    assert not path.exists()
    (tmp_path / "alias").symlink_to(tree / "deep")
    assert find_work_tree(tmp_path / "alias" / "keys.json") == tree
    create_key_file(path, key_set, allow_work_tree=True)
    assert read_key_file(path) == key_set


def test_a_folder_that_is_missing_is_named(tmp_path, key_set):
    with pytest.raises(ConfigurationError, match="cannot be written") as caught:
        create_key_file(tmp_path / "missing" / "keys.json", key_set)
    assert "missing" in caught.value.place


@pytest.mark.parametrize("file_mode", [0o600, 0o640])
def test_a_change_replaces_the_file_and_keeps_its_mode(path, file_mode):
    path.chmod(file_mode)
    reader = path.open()
    before, after = change_key_file(path, lambda key_set: key_set.rotate(NOW))
    assert (len(before.keys), len(after.keys)) == (1, 2)
    assert read_key_file(path) == after
    assert mode(path) == file_mode
    # Who had it open goes on reading the old set as a whole.
    assert KeySet.parse(reader.read(), "open") == before
    reader.close()
    assert names(path.parent) == ["keys.json"]


def test_no_change_writes_nothing(path):
    inode = path.stat().st_ino
    change_key_file(path, lambda key_set: key_set)
    assert path.stat().st_ino == inode


def test_a_refused_change_leaves_the_file(path):
    content = path.read_bytes()
    with pytest.raises(ConfigurationError):
        change_key_file(path, lambda key_set: key_set.retire(key_set.keys[0].kid, NOW))
    assert path.read_bytes() == content
    assert names(path.parent) == ["keys.json"]


def test_a_links_target_is_replaced(path):
    link = path.with_name("link.json")
    link.symlink_to(path)
    _, after = change_key_file(link, lambda key_set: key_set.rotate(NOW))
    assert link.is_symlink()
    assert read_key_file(path) == after


def _rotate_alike(path):
    change_key_file(path, lambda key_set: key_set.rotate(NOW, overlap=HOUR))


def test_rotations_that_meet_add_one_key(path):
    # Each opens the folder for itself, so the lock keeps threads apart as it does processes.
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(_rotate_alike, [path] * 12))
    assert len(read_key_file(path).keys) == 2
    assert names(path.parent) == ["keys.json"]


def _add_note(arguments):
    path, number = arguments
    change_key_file(path, lambda key_set: KeySet(key_set.keys, {**key_set.members, f"note-{number}": number}))


def test_no_change_is_lost_where_many_meet(path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(_add_note, [(path, number) for number in range(24)]))
    assert len(read_key_file(path).members) == 24


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe", b'{"keys": []}'])
def test_unreadable_files_are_named(tmp_path, content):
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_key_file(path)
    assert caught.value.place == str(path)


def test_a_public_file_is_everyones(tmp_path):
    path = tmp_path / "jwks.json"
    before = os.umask(0o077)
    try:
        write_public_file(path, b"1")
        write_public_file(path, b"2")
    finally:
        os.umask(before)
    assert (mode(path), path.read_bytes(), names(tmp_path)) == (0o644, b"2", ["jwks.json"])
    with pytest.raises(ConfigurationError, match="folder"):
        write_public_file(tmp_path, json.dumps({}).encode())
