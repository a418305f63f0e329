import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml

from recsys_mtl.config.recipe import Recipe
from recsys_mtl.evaluate.curve import Curve
from recsys_mtl.evaluate.metric import evaluate_tasks
from recsys_mtl.evaluate.report import write_report
from recsys_mtl.evaluate.rounding import Rounding

VOID = {"meta", "br", "hr", "img", "input", "link"}


def make_recipe(description='A <b>bold</b> claim & "more"') -> Recipe:
    return Recipe.model_validate(
        {
            "name": "toy",
            "description": description,
            "data": {
                "interactions": {"kind": "parquet", "path": "x.parquet"},
                "split": {"kind": "hash", "column": "u"},
            },
            "features": [{"kind": "categorical", "name": "u"}],
            "tasks": [
                {"kind": "binary", "name": "click", "label": "click"},
                {"kind": "binary", "name": "rare", "label": "rare"},
                {"kind": "value", "name": "dwell", "label": "dwell"},
            ],
            "train": {"clip_norm": None},
        }
    )


def make_arguments(recipe: Recipe, num: int = 300) -> dict:
    rng = np.random.default_rng(0)
    prob_BT = 1 / (1 + np.exp(-rng.normal([0.0, -4.0, 0.0], 1.5, (num, 3))))
    label_BT = (rng.random((num, 3)) < prob_BT).astype(np.float64)
    label_BT[:, 2] = rng.poisson(30 * prob_BT[:, 2])
    prob_BT[:, 2] *= 30
    label_BT[::4, 1] = np.nan
    metrics = evaluate_tasks(recipe.tasks, label_BT, prob_BT)
    history = [
        {
            "epoch": 1,
            "step": 100 * (i + 1),
            "train_loss": {"click": 0.6 - 0.1 * i, "rare": 0.1, "dwell": 1.0},
            "metrics": metrics,
            "learning_rates": [0.02 / (i + 1), 0.001 / (i + 1)],
            "seconds": 1.0,
            "rows_per_s": 1e4,
            "best": i == 0,
        }
        for i in range(2)
    ]
    return {
        "recipe": recipe,
        "history": history,
        "metrics": {"valid": metrics, "test": metrics},
        "label_BT": label_BT,
        "prediction_BT": prob_BT,
        "command": "recsys-mtl run toy.yaml && echo '<done>'",
        "counts": {
            "train": {"u": {"missing": 12_345, "unseen": 0, "unreadable": 1}},
            "test": {"u": {"missing": 0, "unseen": 67, "unreadable": 0}},
        },
        "seconds": {"features": 1.5, "train": 20.0},
    }


@pytest.fixture(scope="module")
def recipe():
    return make_recipe()


@pytest.fixture(scope="module")
def page(recipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, **make_arguments(recipe))
    return path.read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Checks that tags nest, and keeps what tests ask for."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def outline(page):
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    return outline


def test_the_page_asks_for_nothing_outside_itself(page, outline):
    assert not {"link", "script", "img", "iframe", "object"} & {
        tag for tag, _ in outline.tags
    }
    for tag, attributes in outline.tags:
        for name in ("href", "xlink:href", "src"):
            assert attributes.get(name, "#").startswith("#"), (tag, attributes)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_what_the_user_wrote_is_text_and_never_markup(page):
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold" in page
    assert "<done>" not in page


def test_the_page_holds_the_metrics_with_their_intervals(page, recipe):
    metrics = make_arguments(recipe)["metrics"]["test"]
    assert f"{metrics['click']['auc']:.4f}" in page
    assert f"{metrics['click']['auc_low']:.4f}" in page
    assert f"{metrics['rare']['normalised_entropy']:.4f}" in page
    assert f"{metrics['dwell']['rmse']:.4g}" in page
    assert "12,345" in page
    assert ">67<" in page


def test_the_recipe_on_the_page_is_the_recipe(page, recipe):
    blocks = re.findall(r"<pre>(.*?)</pre>", page, flags=re.DOTALL)
    written = [html.unescape(block) for block in blocks]
    assert written[0] == "recsys-mtl run toy.yaml && echo '<done>'"
    assert Recipe.model_validate(yaml.safe_load(written[1])) == recipe


def test_every_chart_says_in_words_what_it_shows(outline):
    charts = [attributes for tag, attributes in outline.tags if tag == "svg"]
    # Of each task four, and the overview and the learning rates.
    assert len(charts) == 3 * 4 + 2
    for chart in charts:
        assert chart["role"] == "img"
        assert len(chart["aria-label"]) > 20


def test_ids_of_one_chart_do_not_mean_another(outline):
    shapes: dict[str, set] = {}
    for tag, attributes in outline.tags:
        if tag == "path" and "id" in attributes:
            shapes.setdefault(attributes["id"], set()).add(attributes["d"])
    assert all(len(paths) == 1 for paths in shapes.values())


def test_charts_take_their_colours_from_the_theme(page):
    svgs = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert "var(--first)" in svgs
    assert not re.search(r"(?:fill|stroke): #(?!ffffff)", svgs)


def test_the_same_run_gives_the_same_bytes(page, recipe, tmp_path):
    write_report(tmp_path / "again.html", **make_arguments(recipe))
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_what_rounding_cost_is_told_where_anything_is_rounded(page, recipe, tmp_path):
    rounding = Rounding(
        kind="int8",
        precision="bf16",
        bytes=3_000_000,
        float32_bytes=8_000_000,
        auc={"click": (0.71234, 0.71229)},
    )
    path = tmp_path / "report.html"
    write_report(path, **make_arguments(recipe), rounding=rounding)
    outline = Outline()
    outline.feed(path.read_text(encoding="utf-8"))
    said = " ".join(" ".join(outline.text).split())
    assert "Embedding tables in int8: 3.00 MB instead of 8.00; Products in bf16" in said
    assert "click 0.7123 0.7123 -0.00005" in said
    assert "Embedding tables in" not in page


def test_the_page_stays_small_with_many_rows(recipe, tmp_path):
    path = tmp_path / "report.html"
    write_report(path, **make_arguments(recipe, num=200_000))
    assert path.stat().st_size < 500_000


@pytest.mark.parametrize("num", [0, 1, 2])
def test_a_test_split_of_hardly_a_row_still_makes_a_page(recipe, tmp_path, num):
    arguments = make_arguments(recipe, num)
    path = tmp_path / "report.html"
    write_report(path, **arguments)
    assert "undefined on these rows" in path.read_text(encoding="utf-8")


def test_no_check_no_count_and_no_stage_still_makes_a_page(recipe, tmp_path):
    arguments = make_arguments(recipe)
    arguments |= {"history": [], "counts": {}, "seconds": {}}
    write_report(tmp_path / "report.html", **arguments)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Calibration, test" in page
    assert "AUC, validation" not in page


def test_constant_predictions_still_make_a_page(recipe, tmp_path):
    arguments = make_arguments(recipe)
    arguments["prediction_BT"] = np.full_like(arguments["prediction_BT"], 0.0)
    write_report(tmp_path / "report.html", **arguments)
    assert "Calibration, test" in (tmp_path / "report.html").read_text("utf-8")


def test_times_and_levels_have_charts_and_metrics_of_their_own(tmp_path):
    tasks = [
        {
            "kind": "survival",
            "name": "leave",
            "time": "s",
            "event": "e",
            "horizons": [2, 5],
        },
        {"kind": "ordinal", "name": "rating", "label": "r", "levels": 3},
    ]
    recipe = make_recipe().model_dump() | {"tasks": tasks}
    recipe["train"]["early_stopping"]["metric"] = "leave.c_index"
    recipe = Recipe.model_validate(recipe)
    rng = np.random.default_rng(0)
    rate_B = rng.uniform(0.1, 0.4, 500)
    points = (1.0, 2.0, 5.0, 9.0)
    leave = Curve(points, np.exp(-rate_B[:, None] * points))
    time_B, lost_B = rng.exponential(1 / rate_B), rng.exponential(9, 500)
    signed_B = np.where(time_B < lost_B, time_B, -lost_B)
    signed_B[::7] = np.nan
    above_BP = np.sort(rng.random((500, 2)))[:, ::-1]
    level_B = (rng.random(500)[:, None] < above_BP).sum(axis=1)
    arguments = make_arguments(make_recipe())
    arguments["label_BT"] = np.stack([signed_B, level_B], axis=1)
    arguments["prediction_BT"] = np.stack([1 / rate_B, above_BP.sum(axis=1)], axis=1)
    arguments["curves"] = {"leave": leave, "rating": Curve((0.0, 1.0), above_BP)}
    metrics = evaluate_tasks(
        recipe.tasks,
        arguments["label_BT"],
        arguments["prediction_BT"],
        curves=arguments["curves"],
    )
    for check in arguments["history"]:
        check |= {"metrics": metrics, "train_loss": {"leave": 1.0, "rating": 1.0}}
    arguments |= {"recipe": recipe, "metrics": {"test": metrics}}
    write_report(tmp_path / "report.html", **arguments)
    text = (tmp_path / "report.html").read_text()
    for chart in (
        "Survival, test",
        "Survival at 2, test",
        "Survival at 5, test",
        "Levels, test",
        "Expected level, test",
        "C-index, validation",
        "Kappa, validation",
    ):
        assert f">{chart}<" in text
    for task, metric in (("leave", "c_index"), ("rating", "log_loss")):
        assert f"{metrics[task][metric]:.4f}" in text
