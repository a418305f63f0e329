"""The tree of settings, and the file it is read from."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from recsys_mtl.errors import ConfigError
from serving.run import serve
from serving.settings import ServingSettings
from serving.settings_file import load_settings
from serving.settings_table import settings_table


def write(folder, text):
    path = folder / "serving.yaml"
    path.write_text(text)
    return path


def test_a_file_has_everything(tmp_path):
    path = write(
        tmp_path,
        """
models:
  - {name: new, bundle: runs/new, traffic: 0.1}
  - {name: old, bundle: /abs/old, traffic: 0.9}
server: {replicas: 2}
limits: {max_items: 500}
overload: {requests_per_s: 20, burst: 40}
auth: {keys_file: keys.yaml}
""",
    )
    settings = load_settings(path)
    assert settings.models[0].bundle == tmp_path / "runs/new"
    assert str(settings.models[1].bundle) == "/abs/old"
    assert settings.auth.keys_file == tmp_path / "keys.yaml"
    assert settings.limits.max_items == 500
    assert settings.server.replicas == 2


def test_a_folder_is_a_bundle(tmp_path):
    assert load_settings(tmp_path).models[0].bundle == tmp_path


FAULTS = {
    "misspelt group": (
        "models: [{bundle: b}]\nlimit: {}",
        r"serving\.yaml:2: limit: is no option here; did you mean 'limits'\?",
    ),
    "misspelt field": (
        "models: [{bundle: b}]\nlimits:\n  max_itms: 3",
        r"yaml:3: limits\.max_itms: is no option here; did you mean 'max_items'",
    ),
    "wrong type": (
        "models: [{bundle: b}]\noverload:\n  max_wait_s: soon",
        r"yaml:3: overload\.max_wait_s: must be a number, got 'soon'",
    ),
    "out of range": (
        "models: [{bundle: b, traffic: 2}]",
        r"models\[0\]\.traffic: must be at most 1, got 2",
    ),
    "left out": ("models: [{name: a}]", r"models\[0\]\.bundle: is needed"),
    "no models": ("limits: {}", "models: must name one bundle or more"),
    "shares": (
        "models: [{bundle: b, traffic: 0.5}, {bundle: c, traffic: 0.4}]",
        "traffic of all must add up to 1, got 0.9",
    ),
    "names": (
        "models: [{bundle: b, name: x}, {bundle: c, name: x}]",
        "'x' is taken by another model",
    ),
    "a name that is no part of a URL": (
        "models: [{bundle: b, name: a/b}]",
        r"models\[0\]\.name: must begin with a letter or digit .* got 'a/b'",
    ),
    "NUL": (
        'models: [{bundle: "a\\0b"}]',
        r"models\[0\]\.bundle: must be a path, which has no NUL character",
    ),
    "burst": (
        "models: [{bundle: b}]\noverload: {burst: 3}",
        "burst: has no effect without requests_per_s",
    ),
    "uvicorn": (
        "models: [{bundle: b}]\nserver: {engine: uvicorn, replicas: 2}",
        "uvicorn runs one replica, got 2",
    ),
    "twice": ("verbose: true\nverbose: false", "is given twice"),
    "no mapping": ("- 1", "must be a mapping"),
    "no YAML": ("a: [", "is no YAML"),
}


@pytest.mark.parametrize(("text", "sentence"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told_with_its_place(tmp_path, text, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_settings(write(tmp_path, text))


def test_several_faults_are_told_at_once(tmp_path):
    path = write(tmp_path, "models: [{}]\nlimits: {max_items: 0}\nauht: {}")
    with pytest.raises(ConfigError, match="3 faults"):
        load_settings(path)


def test_settings_do_not_change():
    with pytest.raises(ValidationError):
        ServingSettings().verbose = True


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_need_keys_or_a_word_of_the_operator(tmp_path, host):
    server = {"host": host, "engine": "uvicorn", "port": 0}
    with pytest.raises(ConfigError, match=r"--no-auth"):
        serve(ServingSettings.of_bundle(tmp_path, server=server))


def test_a_server_without_models_is_refused():
    with pytest.raises(ConfigError, match="no bundle"):
        serve(ServingSettings())


def test_the_page_lists_every_setting_with_its_default():
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    _, _, rest = page.partition("<!-- settings -->\n")
    table, _, _ = rest.partition("<!-- end of settings -->")
    assert table == settings_table(), (
        "write the table anew: python -m serving.settings_table docs/serving.md"
    )


def test_the_example_of_the_page_is_read(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    example = page.split("```yaml\n")[1].split("```")[0]
    settings = load_settings(write(tmp_path, example))
    assert [model.name for model in settings.models] == ["champion", "challenger"]
