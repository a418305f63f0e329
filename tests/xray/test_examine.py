"""A trained network looked through: needs of features, tables, and the page."""

import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from feature_tables import NUM_IDS, recipe, write_tables

from recsys_mtl.data.sample import sample_rows
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.train import load_network, train
from recsys_mtl.xray.examine import examine
from recsys_mtl.xray.importance import feature_columns, measure_needs
from recsys_mtl.xray.page import write_xray
from recsys_mtl.xray.result import TableHealth, XRay
from recsys_mtl.xray.table import examine_tables
from recsys_mtl.xray.verdict import feature_findings, table_findings

TASKS = ("click", "stay")
VOID = {"meta"}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("xray") / "tables", rows=900)


@pytest.fixture(scope="module")
def run(tables, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(recipe(epochs=5), tables, folder)
    return folder


@pytest.fixture(scope="module")
def network(tables, run):
    return load_network(recipe(), tables, run)


@pytest.fixture(scope="module")
def xray(tables, run, network):
    history = json.loads((run / "history.json").read_text())
    return examine(
        network,
        tables,
        recipe(),
        split="test",
        limit=10_000,
        shuffles=8,
        about={
            "name": "tiny <b>",
            "bundle": "0123",
            "history": [
                {"step": check["step"], "cosines": check["gradient_cosines"]}
                for check in history
            ],
        },
    )


def test_what_informs_is_needed_and_noise_is_not(xray):
    clicks = {of.feature: of for of in xray.features if of.task == "click"}
    assert set(clicks) == {"user", "item", "tags", "age", "price", "seen"}
    for feature in ("item", "age"):
        assert clicks[feature].matters
        assert clicks[feature].loss > 0.03
    noise = [clicks[feature] for feature in ("user", "tags", "price", "seen")]
    assert max(of.loss for of in noise) < 0.01
    assert sum(of.matters for of in noise) <= 1  # of 95 % intervals, one may miss 0
    stays = {of.feature: of for of in xray.features if of.task == "stay"}
    assert stays["age"].metric == "loss"
    assert stays["age"].matters


def test_shuffling_leaves_rows_and_network_as_they_were(tables, network):
    schema = FeatureManifest.load(tables).feature_schema
    rows, same = (sample_rows(tables, "valid", tasks=TASKS, limit=80) for _ in range(2))
    before = {name: w.clone() for name, w in network.state_dict().items()}
    measure_needs(network, rows, schema, recipe().tasks, shuffles=2)
    for part in ("ids", "lists", "starts", "lengths"):
        for name, array in getattr(same, part).items():
            np.testing.assert_array_equal(getattr(rows, part)[name], array)
    np.testing.assert_array_equal(rows.dense_NM, same.dense_NM)
    after = network.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def test_all_columns_of_a_history_go_together(tables):
    columns = feature_columns(FeatureManifest.load(tables).feature_schema)
    assert columns["seen"] == ("seen.item", "seen.gap")
    assert columns["age"] == ("age",)


def test_a_feature_that_nobody_needs_is_named(xray):
    (finding,) = feature_findings(xray.features)
    assert finding.state == "found"
    assert "price" in finding.says
    assert "age" not in finding.says


def test_vectors_are_counted_as_the_training_rows_read_them(tables, network):
    health = {table.name: table for table in examine_tables(network, tables)}
    rows = pq.read_table(tables / "train")
    seen = [i for cell in rows["seen.item"].to_pylist() for i in cell]
    read = rows["item"].to_pylist() + seen
    item = health["item"]
    assert item.columns == ("item", "seen.item")
    assert item.lookups == len(read)
    assert item.untouched == len(set(range(2, NUM_IDS)) - set(read))
    assert item.missing_lookups == read.count(0)
    assert item.unseen_lookups == read.count(1)
    assert len(item.norms) == 10
    gap = health["seen.gap"]
    gaps = {i for cell in rows["seen.gap"].to_pylist() for i in cell}
    assert gap.untouched == len(set(range(2, gap.rows)) - gaps) > 0
    # What nothing reads stays as small as it was drawn.
    assert gap.untouched_norm < min(gap.norms)


def test_vectors_for_missing_and_unseen_values_never_count_as_untouched(
    tables, network, tmp_path
):
    folder = shutil.copytree(tables, tmp_path / "tables")
    for path in (folder / "train").iterdir():
        rows = pq.read_table(path)
        known = pa.array(np.maximum(rows["user"].to_numpy(), 2))
        place = rows.schema.get_field_index("user")
        pq.write_table(rows.set_column(place, "user", known), path)
    user = {table.name: table for table in examine_tables(network, folder)}["user"]
    assert user.missing_lookups == user.unseen_lookups == 0
    assert user.untouched == 0  # all of the values in between are read
    assert user.untouched_norm is None


def table_of(**other):
    figures = {
        "name": "item",
        "columns": ("item",),
        "rows": 5_000,
        "dim": 8,
        "lookups": 9_000,
        "untouched": 10,
        "missing_lookups": 0,
        "unseen_lookups": 5,
        "unseen_later": 7,
        "norms": (1.0,) * 10,
        "untouched_norm": 0.1,
    }
    return TableHealth.model_validate(figures | other)


def test_tables_that_learned_little_are_told():
    assert [f.state for f in table_findings([table_of()])] == ["fine"]
    (idle,) = table_findings([table_of(untouched=1_500)])
    assert "item (1,500 of 5,000, 30%)" in idle.says
    (fine,) = table_findings([table_of(untouched=300, rows=500)])
    assert fine.state == "fine"
    (stranger,) = table_findings([table_of(unseen_lookups=0)])
    assert "item (7)" in stranger.says
    assert "min_count" in stranger.advice


def test_everything_survives_json(xray):
    text = json.dumps(xray.model_dump(mode="json"), allow_nan=False)
    assert XRay.model_validate_json(text) == xray
    assert len(xray.history) == 5


class Outline(HTMLParser):
    """Checks that tags nest, and keeps what tests ask for."""

    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_names_every_task_and_asks_for_nothing(xray, tmp_path):
    for name in ("one", "two"):
        write_xray(tmp_path / name, xray)
    page = (tmp_path / "one").read_text(encoding="utf-8")
    assert page == (tmp_path / "two").read_text(encoding="utf-8")
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert not {"link", "script", "img", "iframe"} & {tag for tag, _ in outline.tags}
    for _, attributes in outline.tags:
        for name in ("href", "xlink:href", "src"):
            assert attributes.get(name, "#").startswith("#")
    for task in TASKS:
        assert task in page
    for finding in xray.findings:
        assert finding.says.split(":")[0] in page.replace("&#39;", "'")
    assert "<b>" not in page.split("<style>")[0]
    svgs = [attributes for tag, attributes in outline.tags if tag == "svg"]
    assert len(svgs) >= 8
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in svgs)


def test_a_page_of_nothing_is_a_page(xray, tmp_path):
    bare = xray.model_copy(
        update={
            "levels": (),
            "cosines": {},
            "history": (),
            "tables": (),
            "features": (),
            "baseline": {},
        }
    )
    write_xray(tmp_path / "bare.html", bare)
    assert "<svg" not in (tmp_path / "bare.html").read_text(encoding="utf-8")
