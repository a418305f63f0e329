import json

import pytest

from recsys_mtl.errors import ArtifactError
from recsys_mtl.features.manifest import (
    FeatureManifest,
    SplitFiles,
    TaskStats,
    recipe_digest,
)


@pytest.fixture
def manifest(log):
    stats = TaskStats(rows=3, positives=1, mean=1 / 3, log_mean=0.1, log_std=0.2)
    return FeatureManifest(
        recipe=log.recipe.model_dump(mode="json"),
        recipe_digest=recipe_digest(log.recipe),
        feature_schema=log.featurizer.schema,
        signature=log.plan.signature,
        splits={"train": SplitFiles(rows=3, parts=("part-0.parquet",))},
        tasks={"click": {"train": stats}},
        counts={"train": {"age": {"missing": 1, "unseen": 0, "unreadable": 0}}},
        dropped={"no time": 2},
    )


def test_what_is_saved_is_loaded(manifest, tmp_path):
    manifest.save(tmp_path)
    assert FeatureManifest.load(tmp_path) == manifest
    assert "schema" in json.loads((tmp_path / "manifest.json").read_text())
    assert FeatureManifest.load(tmp_path).schema == manifest.feature_schema


def test_missing_damaged_and_foreign_files_are_refused(manifest, tmp_path):
    with pytest.raises(ArtifactError, match="build the feature tables first"):
        FeatureManifest.load(tmp_path)
    manifest.save(tmp_path)
    path = tmp_path / "manifest.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"format_version": 2}))
    with pytest.raises(ArtifactError, match="format 2, this version reads 1"):
        FeatureManifest.load(tmp_path)
    path.write_text(json.dumps(data | {"splits": 3}))
    with pytest.raises(ArtifactError, match="is damaged"):
        FeatureManifest.load(tmp_path)
    path.write_text("[1]")
    with pytest.raises(ArtifactError, match="format None"):
        FeatureManifest.load(tmp_path)


def test_the_digest_follows_data_features_and_tasks_alone(log):
    digest = recipe_digest(log.recipe)
    other_model = log.recipe.model_copy(update={"description": "x"})
    assert recipe_digest(other_model) == digest
    fewer = log.recipe.model_copy(update={"features": log.recipe.features[:3]})
    assert recipe_digest(fewer) != digest
