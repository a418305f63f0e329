"""Which of several models answers."""

import subprocess
import sys
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_mtl.errors import ArtifactError, ConfigError
from serving.fault import HttpFault
from serving.model_set import ModelSet, ServedModel, load_models, share_point
from serving.settings import ModelSettings


def shared(ranker, *shares):
    return ModelSet(
        tuple(ServedModel(name, ranker, s) for name, s in zip("abc", shares))  # noqa: B905
    )


@given(unit=st.text())
def test_a_point_is_the_published_formula(unit):
    digest = sha256(b"traffic\0" + unit.encode("utf-8", "surrogatepass")).hexdigest()
    assert share_point(unit) == int(digest[:16], 16) // 2**11 / 2**53
    assert 0.0 <= share_point(unit) < 1.0


def test_every_process_places_a_user_alike():
    code = "from serving.model_set import share_point as p; print(p('u1'), p('7'))"
    for seed in "12":
        told = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert told.split() == [str(share_point("u1")), str(share_point("7"))]


def test_users_fall_to_models_by_their_shares(ranker):
    models = shared(ranker, 0.2, 0.5, 0.3)
    chosen = [models.choose(None, f"user-{n}") for n in range(20_000)]
    assert {why for _, why in chosen} == {"traffic"}
    for name, share in (("a", 0.2), ("b", 0.5), ("c", 0.3)):
        # Four standard deviations of a binomial count.
        got = sum(model.name == name for model, _ in chosen) / 20_000
        assert got == pytest.approx(
            share, abs=4 * (share * (1 - share) / 20_000) ** 0.5
        )


def test_a_larger_share_takes_nobody_away_from_the_first_model(ranker):
    small, large = shared(ranker, 0.1, 0.9), shared(ranker, 0.3, 0.7)
    for n in range(2_000):
        if small.choose(None, str(n))[0].name == "a":
            assert large.choose(None, str(n))[0].name == "a"


def test_a_model_without_a_share_is_had_by_name_alone(ranker):
    models = shared(ranker, 0.5, 0.0, 0.5)
    assert {models.choose(None, str(n))[0].name for n in range(200)} == {"a", "c"}
    assert models.choose("b", "x")[0].name == "b"
    assert models.choose("b", "x")[1] == "request"
    assert shared(ranker, 1.0, 0.0).choose(None, "x")[1] == "default"


def test_an_unknown_name_gets_the_nearest(ranker):
    with pytest.raises(HttpFault, match="'shop'") as fault:
        ModelSet.of({"shop": ranker}).choose("shpo", "x")
    assert fault.value.status == 404


def test_bundles_are_loaded_under_their_names(tiny):
    settings = [
        ModelSettings(bundle=tiny.bundle),
        ModelSettings(bundle=tiny.bundle, name="other"),
    ]
    models = load_models(settings).models
    assert [model.name for model in models] == ["tiny", "other"]
    assert [model.card.name for model in models] == ["tiny", "other"]
    assert [model.traffic for model in models] == [1.0, 0.0]


def test_two_models_of_one_name_are_refused(tiny):
    with pytest.raises(ConfigError, match=r"'tiny'.*models\[\]\.name"):
        load_models([ModelSettings(bundle=tiny.bundle)] * 2)


def test_an_altered_bundle_is_refused_before_it_is_loaded(tiny, tmp_path):
    copy = tmp_path / "bundle"
    subprocess.run(["cp", "-r", tiny.bundle, copy], check=True)
    weights = copy / "network.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()  # it may be a link to the one of the other tests
    weights.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"network\.safetensors"):
        load_models([ModelSettings(bundle=copy)])
