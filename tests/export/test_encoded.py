import json
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from recsys_mtl.errors import ArtifactError
from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.export.encoded import (
    ENCODED_FOLDER,
    EncodedStore,
    encode_store,
    split_of,
)

NAMES = ["users.safetensors", "items.safetensors"]


@pytest.fixture
def folder(bundle, tmp_path) -> Path:
    return shutil.copytree(bundle / ENCODED_FOLDER, tmp_path / ENCODED_FOLDER)


def split(bundle):
    loaded = load_bundle(bundle)
    return split_of(loaded.featurizer, loaded.store)


def rewrite(path: Path, arrays=None, **about) -> None:
    with safe_open(path, "numpy") as file:
        said = file.metadata()
    save_file(load_file(path) | (arrays or {}), path, said | about)


def test_a_bundle_brings_its_entities_encoded(bundle):
    info = json.loads((bundle / "bundle.json").read_text())
    for name in NAMES:
        content = (bundle / ENCODED_FOLDER / name).read_bytes()
        sealed = info["files"][f"{ENCODED_FOLDER}/{name}"]
        assert sealed["sha256"] == sha256(content).hexdigest()
    loaded = load_bundle(bundle)
    assert loaded.encoded.items.id_columns == ("item",)
    assert loaded.encoded.items.dense_columns == ("price",)
    assert list(loaded.encoded.items.lists) == ["tags"]
    rows = loaded.store.items.rows.num_rows
    assert loaded.encoded.items.ids_EF.shape == (rows + 1, 1)


def test_columns_are_on_the_side_that_they_depend_on(bundle):
    found = load_bundle(bundle).encoded.split
    assert found.shared == ("user",)
    assert found.own == ("item", "tags", "price")


def test_what_is_loaded_is_what_was_saved(bundle, tmp_path):
    loaded = load_bundle(bundle)
    store = encode_store(loaded.featurizer, loaded.store)
    store.save(tmp_path)
    again = EncodedStore.load(tmp_path, store.split)
    for mine, theirs in ((again.users, store.users), (again.items, store.items)):
        arrays, about = mine.arrays()
        expected, said = theirs.arrays()
        assert about == said
        for name, array in expected.items():
            np.testing.assert_array_equal(arrays[name], array)


def test_a_bundle_of_another_time_loads_without(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    shutil.rmtree(copy / ENCODED_FOLDER)
    info = json.loads((copy / "bundle.json").read_text())
    info["files"] = {
        name: seal
        for name, seal in info["files"].items()
        if not name.startswith(ENCODED_FOLDER)
    }
    content = json.dumps(info).encode()
    (copy / "bundle.json").write_bytes(content)
    line = f"{sha256(content).hexdigest()}  bundle.json\n"
    (copy / "bundle.json.sha256").write_text(line)
    assert load_bundle(copy).encoded is None


def test_another_format_is_refused(bundle, folder):
    rewrite(folder / NAMES[0], format="2")
    with pytest.raises(ArtifactError, match="must have format 1, got '2'"):
        EncodedStore.load(folder, split(bundle))


def test_a_damaged_file_is_refused(bundle, folder):
    (folder / NAMES[1]).write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match=f"{NAMES[1]} cannot be read"):
        EncodedStore.load(folder, split(bundle))


def test_columns_of_the_other_side_are_refused(bundle, folder):
    users, items = (folder / name for name in NAMES)
    items.rename(folder / "kept")
    users.rename(items)
    (folder / "kept").rename(users)
    with pytest.raises(ArtifactError, match=r"belong elsewhere \(item, price, tags\)"):
        EncodedStore.load(folder, split(bundle))


def test_a_column_without_its_array_is_refused(bundle, folder):
    rewrite(folder / NAMES[1], **{"log/item_ctr": "item_ctr"})
    with pytest.raises(ArtifactError, match="log/item_ctr/offsets"):
        EncodedStore.load(folder, split(bundle))
