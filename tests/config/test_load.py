# ruff: noqa: E501 - sentences stand whole
"""Reading recipes: what a user is told when something in the file is wrong."""

import json
import re
import subprocess
import sys

import pytest

from recsys_mtl.config.load import load_recipe, recipe_schema, shipped_recipes
from recsys_mtl.config.recipe import Recipe
from recsys_mtl.errors import ConfigError

GOOD = """\
name: small
data:
  interactions: {kind: parquet, path: log.parquet}
  keys: {user: user, item: item}
  timestamp: {column: time, unit: s}
  split: {kind: time, valid: 0.1, test: 0.2}
features:
  - {kind: categorical, name: item, encoder: {kind: hash, buckets: 100}}
  - {kind: numeric, name: price}
  - {kind: history, name: clicks, fields: [item], length: 20}
tasks:
  - {kind: binary, name: click, label: is_click}
  - {kind: value, name: watch, label: watch_s}
train: {epochs: 2, early_stopping: {metric: click.auc}}
score: {kind: sum, weights: {click: 1.0}}
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "r.yaml"
        path.write_text(text)
        return path

    return write


def faults(path, **options):
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, **options)
    head, *lines = str(caught.value).split("\n")
    count = re.search(r"has (\d+) fault", head)
    assert count
    assert int(count[1]) == len(lines)
    return [line.removeprefix(f"{path}:") for line in lines]


def test_a_good_recipe_loads_and_round_trips(write):
    recipe = load_recipe(write(GOOD))
    assert recipe.train.epochs == 2
    assert Recipe.model_validate(json.loads(recipe.model_dump_json())) == recipe


# What is replaced in GOOD, by what, and the sentence that must come out.
BAD = [
    ("name: small", "name: 3 small", "1: name: must begin with a letter and hold only letters, digits and underscores, got '3 small'"),
    ("name: small\n", "", "1: name: is needed, but left out"),
    ("kind: parquet", "kind: parket", "3: data.interactions.kind: is no known kind: got 'parket'; did you mean 'parquet'? Allowed: parquet, arrow, csv, simulator"),
    ("path: log.parquet", "path: 3", "3: data.interactions.path: must be text or a list, got 3"),
    ("path: log.parquet", "path: [a, 3]", "3: data.interactions.path[1]: must be text, got 3"),
    ("path: log.parquet", "pat: a", "3: data.interactions.path: is needed, but left out"),
    ("path: log.parquet", "path: '${NO_SUCH_FOLDER}/x'", "3: data.interactions.path: reads the environment variable NO_SUCH_FOLDER, which is not set; set it, as in NO_SUCH_FOLDER=/data"),
    ("unit: s", "unit: sec", "5: data.timestamp.unit: got 'sec'; allowed: s, ms, us, ns, iso8601"),
    ("  timestamp: {column: time, unit: s}\n", "", "5: data.split: by time needs data.timestamp, which is left out"),
    ("valid: 0.1", "valid: 0.9", "6: data.split: valid + test must be below 1, got 0.9 + 0.2"),
    ("valid: 0.1", "valid: 0", "6: data.split.valid: must be greater than 0, got 0"),
    ("buckets: 100", "buckets: 0", "8: features[0].encoder.buckets: must be greater than 0, got 0"),
    ("buckets: 100", "buckets: 1.5", "8: features[0].encoder.buckets: must be a whole number, got 1.5"),
    ("buckets: 100", "buckets: many", "8: features[0].encoder.buckets: must be a whole number, got 'many'"),
    ("buckets: 100", "bucket: 100", "8: features[0].encoder.bucket: is no option here; did you mean 'buckets'? Allowed: kind, buckets"),
    ("kind: hash, buckets", "kind: vocabulary, buckets", "8: features[0].encoder.buckets: is no option here; allowed: kind, min_count, max_size"),
    ("kind: numeric", "kind: numerical", "9: features[1].kind: is no known kind: got 'numerical'; did you mean 'numeric'? Allowed: categorical, numeric, quantile, list, time_part, cross, history, aggregate"),
    ("{kind: numeric, name: price}", "price", "9: features[1]: must be a mapping, got 'price'"),
    ("length: 20}", "length: 20, pooling: {kind: bert4rec, num_heads: 3}}", "10: features[2].pooling.num_heads: must divide the width of an event, 2 vectors of model.embedding.dim 16, 32 in all; got 3"),
    ("{kind: numeric, name: price}", "{kind: numeric, name: item}", "9: features[1].name: 'item' is taken by features[0]; names must differ"),
    ("{kind: numeric, name: price}", "{kind: numeric, name: watch_s}", "9: features[1]: feature 'watch_s' reads 'watch_s', which is the label of task 'watch'; take it out, or read it in histories alone (history_only: true)"),
    ("{kind: numeric, name: price}", "{kind: categorical, name: dwell, history_only: true}", "9: features[1].history_only: has no effect, for no history reads 'dwell'; name it in the fields of a history, or take it out"),
    ("fields: [item]", "fields: [itm]", "10: features[2].fields[0]: history 'clicks' reads 'itm', which is no categorical or quantile feature; did you mean 'item'? Allowed: item"),
    ("fields: [item]", "fields: [price]", "10: features[2].fields[0]: history 'clicks' reads 'price', which is no categorical or quantile feature; allowed: item"),
    ("fields: [item]", "fields: [item, item]", "10: features[2].fields[1]: history 'clicks' names 'item' twice; take one out"),
    ("fields: [item]", "fields: []", "10: features[2].fields: must have 1 or more entries, got 0"),
    ("length: 20", "length: 20, keep: 5", "10: features[2].keep: must be at least length, got keep 5 and length 20"),
    ("length: 20", "where: {column: c}", "10: features[2].where: needs exactly one of equals, not_equals, above, at_least; got none"),
    ("user: user, item: item", "item: item", "10: features[2]: feature 'clicks' of kind 'history' needs data.keys.user, which is left out"),
    ("train: {", "model: {embedding: {dim: 10}}\ntrain: {", "14: model.embedding.dim: must be a multiple of 4 for train.embedding_optimizer 'rowwise_adagrad', got 10; take 12, or the optimizer 'adam'"),
    ("label: is_click", "label: 7", "12: tasks[0].label: must be text or a mapping, got 7"),
    ("label: is_click", "label: {column: c, above: 1, equals: 2}", "12: tasks[0].label: needs exactly one of equals, not_equals, above, at_least; got equals, above"),
    ("name: watch,", "name: click,", "13: tasks[1].name: 'click' is taken by tasks[0]; names must differ"),
    ("name: watch,", "name: mean,", "13: tasks[1].name: must not be 'mean', which stands for all tasks in train.early_stopping.metric"),
    ("label: watch_s", "label: watch_s, loss: log", "13: tasks[1].loss: got 'log'; allowed: log_normal, squared, zero_inflated_log_normal"),
    ("epochs: 2", "epochs: -1", "14: train.epochs: must be greater than 0, got -1"),
    ("epochs: 2", "epoch: 2", "14: train.epoch: is no option here; did you mean 'epochs'? Allowed: seed, epochs, batch_size, embedding_optimizer, optimizer, warmup_steps, schedule, early_stopping, checks_per_epoch, clip_norm, precision, num_threads, shuffle_rows"),
    ("epochs: 2", "precision: fp16", "14: train.precision: got 'fp16'; did you mean 'bf16'? Allowed: fp32, bf16"),
    ("epochs: 2", "optimizer: adam", "14: train.optimizer: must be a mapping, got 'adam'"),
    ("epochs: 2", "schedule: {factor: 0.5}", "14: train.schedule.kind: is needed, but left out; allowed: constant, plateau"),
    ("click.auc", "clik.auc", "14: train.early_stopping.metric: names 'clik', which is neither 'mean' nor a task; did you mean 'click'? Allowed: click, watch, mean"),
    ("click.auc", "click.rmse", "14: train.early_stopping.metric: names 'rmse', which is no metric of binary task 'click'; allowed: auc, gauc, log_loss, normalised_entropy"),
    ("click.auc", "watch.ma", "14: train.early_stopping.metric: names 'ma', which is no metric of value task 'watch'; did you mean 'mae'? Allowed: rmse, mae, rank_correlation"),
    ("click.auc", "mean.accuracy", "14: train.early_stopping.metric: names 'accuracy', which is no metric of any task; allowed: auc, gauc, log_loss, normalised_entropy, rmse, mae, rank_correlation"),
    ("click.auc", "auc", "14: train.early_stopping.metric: must be TASK.METRIC or mean.METRIC, got 'auc'"),
    ("{click: 1.0}", "{clicks: 1.0}", "15: score.weights.clicks: weighs 'clicks', which is no task; did you mean 'click'? Allowed: click, watch"),
    ("{click: 1.0}", "{click: high}", "15: score.weights.click: must be a number, got 'high'"),
    ("{click: 1.0}", "{}", "15: score.weights: must have 1 or more entries, got 0"),
    ("name: small", "nmae: small\nname: small", "1: nmae: is no option here; did you mean 'name'? Allowed: name, description, data, features, tasks, model, train, export, score"),
    ("epochs: 2", "epochs: 2, epochs: 3", "14: train.epochs: is given twice, in lines 14 and 14; keep one"),
]  # fmt: skip


@pytest.mark.parametrize(("there", "instead", "sentence"), BAD, ids=lambda x: x[:40])
def test_a_fault_is_named_where_it_is(write, there, instead, sentence):
    assert GOOD.count(there) == 1
    found = faults(write(GOOD.replace(there, instead)))
    assert sentence in found
    others = [f for f in found if f != sentence]
    # What else is said must be about the same spot: a name that is not there, say.
    where = sentence.split(": ")[1].rsplit(".", 1)[0]
    assert all(where in other for other in others)


def test_all_faults_are_named_at_once(write):
    apart = [bad for bad in BAD if bad[1] and "timestamp" not in bad[0]]
    text, wanted, used = GOOD, [], set()
    for there, instead, sentence in apart:
        line = GOOD[: GOOD.index(there)].count("\n")
        if line not in used and "\n" not in instead:
            used.add(line)
            text = text.replace(there, instead)
            wanted.append(sentence)
    assert len(wanted) >= 9
    found = faults(write(text))
    # What is allowed depends on the other faults: names are changed as well.
    told = {sentence.split("Allowed")[0] for sentence in found}
    assert not {sentence.split("Allowed")[0] for sentence in wanted} - told
    assert len(found) == len(set(found))


def test_a_fault_in_a_feature_raises_no_false_ones_elsewhere(write):
    text = GOOD.replace("kind: categorical", "kind: categoricl").replace(
        "name: click,", "name: click, weigth: 2,"
    )
    found = faults(write(text))
    assert [f.split(": ")[1] for f in found] == ["features[0].kind", "tasks[0].weigth"]


def test_two_keys_of_one_name_are_refused_with_both_lines(write):
    found = faults(write(GOOD + "name: again\n"))
    assert found == ["16: name: is given twice, in lines 1 and 16; keep one"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "r.yaml:1: is no YAML"),
        ("", "must be a mapping with name, data, features and tasks, got NoneType"),
        ("- 1", "must be a mapping with name, data, features and tasks, got list"),
        ("a: &x [*x]", "an alias must not stand inside its own anchor"),
        ("{a: ${X}/b}", "quote text that holds ${...}"),
        ("a: !!python/name:os.system x", "is no YAML"),
    ],
)
def test_what_is_no_recipe_at_all_is_refused(write, text, message):
    with pytest.raises(ConfigError) as caught:
        load_recipe(write(text))
    assert message in str(caught.value)


def test_an_unknown_name_tells_the_shipped_ones(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'quickstart'"):
        load_recipe("quickstrat")
    with pytest.raises(ConfigError, match="is a folder"):
        load_recipe(tmp_path)


def test_a_name_is_looked_up_in_the_folder_given(write, tmp_path):
    write(GOOD)
    assert load_recipe("r", shipped=tmp_path).name == "small"


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_loads(monkeypatch, name):
    monkeypatch.setenv("RECSYS_MTL_DATA", "/data")
    recipe = load_recipe(name)
    assert recipe.name == name
    assert Recipe.model_validate(recipe.model_dump()) == recipe


def test_quickstart_is_shipped_and_simulated():
    assert "quickstart" in shipped_recipes()
    assert load_recipe("quickstart").data.interactions.kind == "simulator"


def test_a_path_keeps_the_variable_it_was_written_with(write, monkeypatch):
    monkeypatch.setenv("HERE", "/somewhere")
    text = GOOD.replace("log.parquet", "'${HERE}/log.parquet'").replace(
        "name: small", "name: small\ndescription: ${HERE}"
    )
    recipe = load_recipe(write(text))
    assert recipe.data.interactions.path == "${HERE}/log.parquet"
    assert recipe.description == "${HERE}"


def test_overrides_are_put_in_before_the_checks(write):
    path = write(GOOD.replace("epochs: 2", "epochs: -1"))
    changes = [
        "train.epochs=7",
        "train.schedule={kind: plateau, factor: 0.5}",
        "model.embedding.dim=8",
        "tasks.watch.weight=0.5",
        "tasks[0].weight=2",
        "features.item.encoder.buckets=9",
        "score=null",
    ]
    recipe = load_recipe(path, overrides=changes)
    assert recipe.train.epochs == 7
    assert recipe.train.schedule.kind == "plateau"
    assert recipe.model.embedding.dim == 8
    assert [task.weight for task in recipe.tasks] == [2.0, 0.5]
    assert recipe.features[0].encoder.buckets == 9
    assert recipe.score is None


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("trian.seed=3", "trian: is no option here; did you mean 'train'?"),
        ("train.sed=3", "train.sed: is no option here; did you mean 'seed'?"),
        ("train.epochs=0", "train.epochs: must be greater than 0, got 0"),
        (
            "tasks.clik.weight=1",
            "tasks has no entry named 'clik'; did you mean 'click'",
        ),
        ("tasks[5].weight=1", "tasks has 2 entries, from 0; there is no 5"),
        ("name.x=1", "name is 'small', which has no parts; give name=... whole"),
        ("train.epochs", "must be path=value, as train.epochs=1"),
        ("train..epochs=1", "must be path=value, as train.epochs=1"),
        ("train.epochs=[", "while parsing"),
    ],
)
def test_a_bad_override_is_named_itself(write, override, sentence):
    (found,) = faults(write(GOOD), overrides=[override])
    assert found.startswith(f"override {override!r}: ")
    assert sentence in found


def test_overrides_that_fix_nothing_leave_the_files_faults(write):
    path = write(GOOD.replace("buckets: 100", "buckets: 0"))
    found = faults(path, overrides=["train.sed=3"])
    assert found[0].startswith("8: features[0].encoder.buckets")
    assert found[1].startswith("override 'train.sed=3'")


def test_no_message_shows_a_name_that_was_made_up(write):
    text = GOOD.replace("name: item,", "name: 3,").replace("name: click,", "name: 4,")
    assert not any("invented" in fault for fault in faults(write(text)))


def test_the_schema_names_every_option_and_keeps_descriptions():
    schema = recipe_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["title"] == "Recipe"
    assert "$id" not in schema
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert "newest events used" in json.dumps(schema)
    assert not schema["additionalProperties"]


def test_loading_a_recipe_imports_neither_torch_nor_ray():
    code = (
        "import sys; from recsys_mtl.config.load import load_recipe;"
        "load_recipe('quickstart'); print([m for m in ('torch', 'ray', 'pipelines')"
        " if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
