import json
import os
import pickletools
import resource
import shutil
import subprocess
import sys
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from recsys_mtl.data.batch import to_batch
from recsys_mtl.errors import ArtifactError, EnvironmentFault
from recsys_mtl.export.bundle import load_bundle, write_bundle
from recsys_mtl.features.featurizer import Featurizer
from recsys_mtl.features.join import FeatureStore

FILES = [
    "bundle.json",
    "bundle.json.sha256",
    "items.arrow",
    "manifest.json",
    "network.safetensors",
    "report.html",
]


@pytest.fixture
def copy(bundle, tmp_path) -> Path:
    return shutil.copytree(bundle, tmp_path / "copy")


def names(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


def rewrite_info(folder: Path, **other) -> None:
    """Change ``bundle.json`` and seal it anew, as someone who means it would."""
    info = json.loads((folder / "bundle.json").read_text())
    content = json.dumps(info | other).encode()
    (folder / "bundle.json").write_bytes(content)
    line = f"{sha256(content).hexdigest()}  bundle.json\n"
    (folder / "bundle.json.sha256").write_text(line)


def predict(made, featurizer, store, network) -> torch.Tensor:
    assembled = store.assemble(made.log)
    encoded = featurizer.encode(assembled.raw, assembled.histories)
    batch = to_batch(encoded, featurizer.schema)
    with torch.inference_mode():
        return network.predict(network(batch).logits)


# What goes in comes out


def test_predictions_after_a_round_trip_are_equal_to_the_last_digit(made, bundle):
    loaded = load_bundle(bundle)
    featurizer = Featurizer.load(made.tables / "encoders")
    store = FeatureStore(loaded.store.contract, None, loaded.store.items)
    expected_BT = predict(made, featurizer, store, made.network)
    got_BT = predict(made, loaded.featurizer, loaded.store, loaded.network)
    assert expected_BT.std() > 0.01
    assert torch.equal(got_BT, expected_BT)


def test_a_loaded_bundle_says_what_it_is(made, bundle):
    loaded = load_bundle(bundle)
    assert loaded.recipe == made.recipe
    assert loaded.schema == loaded.featurizer.schema
    assert {column.name for column in loaded.signature} >= {"user", "item", "price"}
    assert loaded.stats["click"].mean == 0.4
    assert loaded.info.metrics["click"]["auc"] == 0.75
    assert loaded.info.versions["torch"] == version("torch")
    assert loaded.store.users is None
    assert not loaded.network.training
    assert loaded.digest == sha256((bundle / "bundle.json").read_bytes()).hexdigest()
    assert loaded.version == loaded.digest[:12]


def test_weights_need_no_gradient_and_lie_on_the_cpu(bundle):
    for name, parameter in load_bundle(bundle).network.named_parameters():
        assert not parameter.requires_grad, name
        assert parameter.device.type == "cpu", name


def test_every_file_is_listed_with_its_hash_but_the_list_and_its_own(bundle):
    info = json.loads((bundle / "bundle.json").read_text())
    assert sorted([*info["files"], "bundle.json", "bundle.json.sha256"]) == names(
        bundle
    )
    for name, seal in info["files"].items():
        assert seal["sha256"] == sha256((bundle / name).read_bytes()).hexdigest()


def test_sha256sum_agrees(bundle):
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")
    subprocess.run(
        ["sha256sum", "--check", "--status", "bundle.json.sha256"],
        cwd=bundle,
        check=True,
    )


def test_no_file_is_a_pickle(bundle):
    for name in names(bundle):
        content = (bundle / name).read_bytes()
        with pytest.raises(ValueError):  # noqa: PT011 - the text is pickletools' own
            list(pickletools.genops(content))


def test_the_tables_stay_as_they_are_when_the_bundle_goes(made, tmp_path):
    before = {n: (made.tables / n).read_bytes() for n in names(made.tables)}
    shutil.rmtree(write_bundle(tmp_path / "bundle", **made.arguments()))
    assert {n: (made.tables / n).read_bytes() for n in names(made.tables)} == before


def test_a_report_written_anew_leaves_the_bundle_as_it_is(made, tmp_path):
    report = tmp_path / "report.html"
    report.write_text("first")
    folder = write_bundle(tmp_path / "bundle", **made.arguments(report=report))
    report.write_text("second")
    load_bundle(folder)
    assert (folder / "report.html").read_text() == "first"


def test_a_report_may_be_written_once_it_is_known_how_tables_are_stored(made, tmp_path):
    report = tmp_path / "report.html"
    report.write_text("before")
    folder = write_bundle(
        tmp_path / "bundle",
        **made.arguments(report=report),
        on_rounding=lambda made: report.write_text(f"tables in {made.kind}"),
    )
    assert (folder / "report.html").read_text() == "tables in float32"
    load_bundle(folder)


def test_tables_that_are_links_go_in_as_files(made, tmp_path):
    tables = shutil.copytree(made.tables, tmp_path / "tables")
    (tables / "items.arrow").unlink()
    (tables / "items.arrow").symlink_to(made.tables / "items.arrow")
    folder = write_bundle(tmp_path / "bundle", **made.arguments(tables=tables))
    assert not (folder / "items.arrow").is_symlink()
    load_bundle(folder)


def test_large_tables_are_not_stored_twice(made, tmp_path):
    folder = write_bundle(tmp_path / "bundle", **made.arguments())
    if not (made.tables / "items.arrow").samefile(folder / "items.arrow"):
        pytest.skip("this disk has no hard links")


def test_a_bundle_moves_and_loads_through_a_link_to_its_folder(copy, tmp_path):
    copy.rename(tmp_path / "moved")
    (tmp_path / "current").symlink_to("moved")
    assert load_bundle(tmp_path / "current").recipe.name == "small"


def test_a_bundle_without_a_report_loads(made, tmp_path):
    folder = write_bundle(tmp_path / "bundle", **made.arguments(report=None))
    assert "report.html" not in names(folder)
    load_bundle(folder)


# What is not whole or not itself is refused


def test_one_altered_byte_of_any_file_is_refused(bundle, copy):
    assert set(FILES) < set(names(bundle))
    assert any(name.startswith("encoders/") for name in names(bundle))
    for name in names(bundle):
        content = bytearray((bundle / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(ArtifactError, match=name.split("/")[-1]):
            load_bundle(copy)
        (copy / name).write_bytes((bundle / name).read_bytes())
    load_bundle(copy)


def test_any_missing_file_is_refused(bundle, copy):
    for name in names(bundle):
        (copy / name).rename(copy.parent / "aside")
        with pytest.raises(ArtifactError, match=name.split("/")[-1]):
            load_bundle(copy, verify=False)
        (copy.parent / "aside").rename(copy / name)
    load_bundle(copy)


def test_an_extra_file_is_refused(copy):
    (copy / "encoders" / "extra.pkl").write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"extra\.pkl"):
        load_bundle(copy)


def test_a_linked_file_is_refused_though_its_bytes_are_right(bundle, copy):
    (copy / "items.arrow").unlink()
    (copy / "items.arrow").symlink_to(bundle / "items.arrow")
    with pytest.raises(ArtifactError, match="link"):
        load_bundle(copy)


def test_a_path_out_of_the_folder_is_refused_though_its_hash_is_right(copy):
    secret = copy.parent / "secret"
    secret.write_bytes(b"x")
    files = json.loads((copy / "bundle.json").read_text())["files"]
    seal = {"sha256": sha256(b"x").hexdigest(), "bytes": 1}
    rewrite_info(copy, files=files | {"../secret": seal})
    with pytest.raises(ArtifactError, match=r"\.\./secret"):
        load_bundle(copy)


def test_another_format_version_is_refused_by_number(copy):
    rewrite_info(copy, format_version=2, something="new")
    with pytest.raises(ArtifactError, match="format version 1, got 2"):
        load_bundle(copy)


def test_a_recipe_of_another_time_is_refused_with_the_reason(copy):
    recipe = json.loads((copy / "bundle.json").read_text())["recipe"]
    rewrite_info(copy, recipe=recipe | {"quantum": True})
    with pytest.raises(ArtifactError, match="quantum"):
        load_bundle(copy)


def test_a_folder_without_a_bundle_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"nothing.*bundle\.json"):
        load_bundle(tmp_path / "nothing")


def test_an_empty_list_of_files_is_refused(copy):
    rewrite_info(copy, files={})
    with pytest.raises(ArtifactError, match="nothing but its own files"):
        load_bundle(copy)


def test_weights_of_another_shape_are_refused_on_writing(made, tmp_path):
    state = dict(made.network.state_dict())
    name = next(name for name in state if "id_user" in name)
    state[name] = state[name][:-1]
    with pytest.raises(ArtifactError, match=f"{name}.*must be float32"):
        write_bundle(tmp_path / "bundle", **made.arguments(state=state))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", ["missing", "extra", "type"])
def test_weights_that_do_not_fit_are_refused_on_writing(made, tmp_path, fault):
    state = dict(made.network.state_dict())
    name = next(iter(state))
    if fault == "missing":
        del state[name]
    elif fault == "extra":
        state["other"] = torch.zeros(1)
    else:
        state[name] = state[name].double()
    with pytest.raises(ArtifactError, match=r"absent|float64"):
        write_bundle(tmp_path / "bundle", **made.arguments(state=state))


def test_weights_of_another_recipe_are_refused_on_loading(copy):
    recipe = json.loads((copy / "bundle.json").read_text())["recipe"]
    recipe["model"]["embedding"]["dim"] = 8
    rewrite_info(copy, recipe=recipe)
    with pytest.raises(ArtifactError, match=r"network\.safetensors must be"):
        load_bundle(copy)


def test_tables_of_another_recipe_are_refused_on_writing(made, tmp_path):
    task = made.recipe.tasks[0].model_copy(update={"label": "like"})
    recipe = made.recipe.model_copy(update={"tasks": (task, made.recipe.tasks[1])})
    with pytest.raises(ArtifactError, match="build the feature tables again"):
        write_bundle(tmp_path / "bundle", **made.arguments(recipe=recipe))


# Written whole or not at all


def test_an_existing_folder_is_not_written_into(bundle, made):
    with pytest.raises(ArtifactError, match="exists; delete it"):
        write_bundle(bundle, **made.arguments())
    load_bundle(bundle)


def test_a_full_disk_leaves_nothing_behind(made, tmp_path):
    """A limit on the size of files stands in for the full disk: writes truly fail."""
    size = (made.tables / "items.arrow").stat().st_size
    weights = sum(v.numel() * 4 for v in made.network.state_dict().values())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert weights > 1_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (weights // 2, before[1]))
    try:
        with pytest.raises(EnvironmentFault, match="bundle could not be written"):
            write_bundle(tmp_path / "bundle", **made.arguments())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
    assert (made.tables / "items.arrow").stat().st_size == size


def test_a_kill_leaves_nothing_under_the_final_name(made, tmp_path):
    """The process dies of SIGXFSZ in the middle of writing the weights."""
    save_file(made.network.state_dict(), tmp_path / "state.safetensors")
    (tmp_path / "recipe.json").write_text(made.recipe.model_dump_json())
    out = tmp_path / "out"
    out.mkdir()
    program = """
import resource, signal, sys
from pathlib import Path
from safetensors.torch import load_file
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.export.bundle import write_bundle
work, tables = Path(sys.argv[1]), Path(sys.argv[2])
state = load_file(work / "state.safetensors")
recipe = Recipe.model_validate_json((work / "recipe.json").read_text())
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (500, -1))
write_bundle(work / "out" / "bundle", recipe=recipe, tables=tables, state=state,
             metrics={})
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(made.tables)],
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        check=False,
    )
    assert done.returncode < 0  # of a signal
    assert not (out / "bundle").exists()
    (left,) = out.iterdir()  # what the dead process left is hidden, and no bundle
    assert left.name.startswith(".bundle.")
    with pytest.raises(ArtifactError, match="complete bundle"):
        load_bundle(left)
    write_bundle(out / "bundle", **made.arguments())
    load_bundle(out / "bundle")
