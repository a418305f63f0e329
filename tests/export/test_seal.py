import os
from hashlib import sha256

import pytest

from recsys_mtl.errors import ArtifactError
from recsys_mtl.export.seal import FileSeal, check_files, seal_files


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "a.bin").write_bytes(b"abc")
    (tmp_path / "deep" / "er" / "b.bin").write_bytes(b"")
    return tmp_path


def check(folder, seals, **more):
    check_files(folder, seals, **{"besides": frozenset(), "hash": True} | more)


def test_a_seal_names_each_file_with_its_hash_and_size(folder):
    assert seal_files(folder) == {
        "a.bin": FileSeal(sha256=sha256(b"abc").hexdigest(), bytes=3),
        "deep/er/b.bin": FileSeal(sha256=sha256(b"").hexdigest(), bytes=0),
    }


def test_an_unaltered_folder_passes(folder):
    check(folder, seal_files(folder))


def test_another_byte_of_the_same_length_is_refused_with_both_hashes(folder):
    seals = seal_files(folder)
    (folder / "a.bin").write_bytes(b"abd")
    with pytest.raises(ArtifactError, match=r"a\.bin") as caught:
        check(folder, seals)
    assert sha256(b"abc").hexdigest() in str(caught.value)
    assert sha256(b"abd").hexdigest() in str(caught.value)


def test_another_length_is_refused_even_without_hashing(folder):
    seals = seal_files(folder)
    (folder / "a.bin").write_bytes(b"abcd")
    with pytest.raises(ArtifactError, match="must have 3 bytes, got 4"):
        check(folder, seals, hash=False)


def test_a_missing_file_is_refused_by_name(folder):
    seals = seal_files(folder)
    (folder / "deep" / "er" / "b.bin").unlink()
    with pytest.raises(ArtifactError, match=r"deep/er/b\.bin.*missing"):
        check(folder, seals)


def test_an_extra_file_is_refused_unless_it_is_expected(folder):
    seals = seal_files(folder)
    (folder / "deep" / "more.py").write_text("import os")
    with pytest.raises(ArtifactError, match=r"deep/more\.py"):
        check(folder, seals)
    check(folder, seals, besides=frozenset({"deep/more.py"}))


@pytest.mark.parametrize("of", ["file", "folder", "nothing"])
def test_a_link_is_refused_whatever_it_points_to(folder, tmp_path_factory, of):
    seals = seal_files(folder)
    outside = tmp_path_factory.mktemp("outside")
    (outside / "file").write_bytes(b"abc")
    target = {"file": outside / "file", "folder": outside, "nothing": outside / "no"}
    (folder / "a.bin").unlink()
    (folder / "a.bin").symlink_to(target[of])
    with pytest.raises(ArtifactError, match="link"):
        check(folder, seals)


def test_a_pipe_is_refused_and_not_read(folder):
    seals = seal_files(folder)
    (folder / "a.bin").unlink()
    os.mkfifo(folder / "a.bin")
    with pytest.raises(ArtifactError, match="special file"):
        check(folder, seals)


@pytest.mark.parametrize(
    "name",
    ["../a.bin", "/etc/passwd", "deep/../a.bin", "deep\\..\\a.bin", "./a.bin", "", "."],
)
def test_a_name_that_could_lead_out_of_the_folder_is_refused(folder, name):
    seals = seal_files(folder)
    seals[name] = seals["a.bin"]
    with pytest.raises(ArtifactError, match="relative path below the folder"):
        check(folder, seals)
