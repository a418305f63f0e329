"""Dashboard and alerts against the metrics that the code has."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from serving.observability.family import FAMILIES, labels_of

FOLDER = Path(__file__).parents[2] / "k8s" / "monitoring"
SCHEMAS = os.environ.get("RECSYS_MTL_SCHEMAS")
# Labels that the machinery of Prometheus knows, not the server.
OUTSIDE = {"le"}


def alerts():
    return yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))


def dashboard():
    return json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))


def rules():
    return [rule for group in alerts()["spec"]["groups"] for rule in group["rules"]]


def dashboard_expressions():
    board = dashboard()
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target["legendFormat"]
    for note in board["annotations"]["list"]:
        yield note["name"], note["expr"], note["titleFormat"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"])
            series, label = found.groups()
            yield variable["name"], f"sum by ({label}) ({series})", ""


def rule_expressions():
    for rule in rules():
        told = " ".join(rule.get("annotations", {}).values())
        used = " ".join(f"{{{{{n}}}}}" for n in re.findall(r"\$labels\.(\w+)", told))
        yield rule.get("alert") or rule["record"], rule["expr"], used


ALL = [
    pytest.param(*case, id=f"{source}-{i}-{case[0]}")
    for source, cases in (
        ("dashboard", dashboard_expressions()),
        ("alerts", rule_expressions()),
    )
    for i, case in enumerate(cases)
]
RECORDED = {rule["record"] for rule in rules() if "record" in rule}


def series_of(expression):
    """Names of series, each with the labels in its braces."""
    without_text = re.sub(r'"[^"]*"', '""', expression)
    for found in re.finditer(r"([a-z]\w*:[\w:]+|recsys_\w+)(\{[^}]*\})?", without_text):
        name, braces = found.groups()
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", braces or ""))


@pytest.mark.parametrize(("title", "expression", "legend"), ALL)
def test_every_metric_and_every_label_exists(title, expression, legend):
    del title
    found = list(series_of(expression))
    assert found
    known = set(OUTSIDE)
    for name, labels in found:
        if name in RECORDED:
            continue
        own = labels_of(name)
        assert own is not None, f"no series {name}"
        assert labels <= {*own}, f"{name} has no {labels - {*own}}"
        known |= {*own}
    grouped = re.findall(r"\b(?:by|on|group_left|without)\s*\(([^)]*)\)", expression)
    used = {label for part in grouped for label in re.findall(r"\w+", part)}
    assert used <= known, f"no such label: {used - known}"
    # What a legend or a sentence names must be left after grouping.
    named = set(re.findall(r"\{\{\s*(\w+)\s*\}\}", legend))
    assert named <= used, f"grouped away: {named - used}"


def test_a_name_that_does_not_exist_is_found():
    with pytest.raises(AssertionError, match="no series recsys_reqests_total"):
        test_every_metric_and_every_label_exists("", "sum(recsys_reqests_total)", "")
    wrong = 'recsys_requests_total{rout="x"}'
    with pytest.raises(AssertionError, match="has no"):
        test_every_metric_and_every_label_exists("", wrong, "")


def test_every_metric_is_shown_or_alerted_on():
    shown = {
        name
        for case in [*dashboard_expressions(), *rule_expressions()]
        for name, _ in series_of(case[1])
    }
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown} | shown
    unused = FAMILIES.keys() - families
    # These say the same as others, in another form, or explain them elsewhere.
    assert unused == {"recsys_build_info", "recsys_model_created_timestamp_seconds"}


def test_what_must_be_alerted_on_is():
    names = {rule["alert"] for rule in rules() if "alert" in rule}
    assert {
        *("RecsysErrorBudgetBurnsFast", "RecsysErrorBudgetBurnsSlowly", "RecsysSlow"),
        *("RecsysErrors", "RecsysSheds", "RecsysCalibrationOff", "RecsysModelStale"),
        *("RecsysMissingValuesJump", "RecsysStoreDegraded"),
        "RecsysStoreMissesJump",
    } <= names
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in {"critical", "warning"}
            assert {"summary", "description"} == rule["annotations"].keys()


def test_panels_do_not_overlap_and_ids_differ():
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def strict(schema):
    """As an API server reads it: fields that are not in it are faults."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("anyOf", None)
        schema["type"] = ["integer", "string"]
    if isinstance(schema.get("properties"), dict):
        schema.setdefault("additionalProperties", False)
    return schema


@pytest.mark.skipif(
    SCHEMAS is None,
    reason="RECSYS_MTL_SCHEMAS names no folder with schemas of Prometheus' operator",
)
def test_alerts_are_what_the_operator_takes():
    jsonschema = pytest.importorskip("jsonschema")
    path = Path(SCHEMAS) / "monitoring.coreos.com_v1_PrometheusRule.json"
    schema = strict(json.loads(path.read_text(encoding="utf-8")))
    schema["properties"]["metadata"] = {"type": "object"}
    validator = jsonschema.Draft202012Validator(schema)
    assert [error.message for error in validator.iter_errors(alerts())] == []
    wrong = alerts()
    wrong["spec"]["groups"][0]["rules"][0]["expresion"] = "1"
    assert list(validator.iter_errors(wrong))


promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed; it comes with Prometheus",
)


def run_promtool(folder, *arguments):
    return subprocess.run(
        ["promtool", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@promtool
def test_prometheus_reads_every_expression(tmp_path):
    variables = {"$__rate_interval": "5m", "$route": ".*", "$model": ".*", "$task": "x"}
    shown = []
    for i, (_, expression, _) in enumerate(dashboard_expressions()):
        plain = expression
        for name, value in variables.items():
            plain = plain.replace(name, value)
        shown.append({"record": f"shown:{i}", "expr": plain})
    groups = [*alerts()["spec"]["groups"], {"name": "shown", "rules": shown}]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    done = run_promtool(tmp_path, "check", "rules", "rules.yaml")
    assert done.returncode == 0, done.stderr


FAILED = 'recsys_requests_total{route="/v1/rank", model="m", version="1", status="500"}'
FINE = 'recsys_requests_total{route="/v1/rank", model="m", version="1", status="200"}'
OF_TASK = '{model="m", version="1", task="click"}'
OF_FEATURE = '{model="m", version="1", feature="age"}'
CASES = {
    "RecsysErrorBudgetBurnsFast": {FAILED: "0+2x400", FINE: "0+98x400"},
    "RecsysErrors": {FAILED: "0+2x400", FINE: "0+98x400"},
    "RecsysSheds": {
        'recsys_shed_total{route="/v1/rank", reason="wait"}': "0+10x400",
        FINE: "0+90x400",
    },
    "RecsysStoreDegraded": {
        'recsys_degraded_total{route="/v1/rank", model="m", version="1"}': "0+5x400",
        FINE: "0+95x400",
    },
    "RecsysCalibrationOff": {
        f"recsys_feedback_prediction_sum_total{OF_TASK}": "0+12x400",
        f"recsys_feedback_label_sum_total{OF_TASK}": "0+10x400",
    },
    "RecsysMissingValuesJump": {
        f"recsys_feature_cells_total{OF_FEATURE}": "0+10x400",
        f"recsys_missing_cells_total{OF_FEATURE}": "0+0x360 3+3x40",
    },
    "RecsysStoreMissesJump": {
        'recsys_entity_keys_total{kind="users"}': "0+10x400",
        'recsys_entity_misses_total{kind="users"}': "0+1x340 341+9x60",
    },
    "RecsysModelStale": {
        'recsys_model_age_seconds{model="m", version="1"}': "700000+60x400",
        'recsys_model_traffic_ratio{model="m", version="1"}': "1+0x400",
    },
    "RecsysPredictionsNotFinite": {
        f"recsys_predictions_not_finite_total{OF_TASK}": "0+1x400"
    },
    "RecsysDown": {"up": "1+0x400"},
}
QUIET = {
    FAILED: "0+0x400",
    FINE: "0+100x400",
    "recsys_replicas": "1+0x400",
    "recsys_replicas_ready": "1+0x400",
    f"recsys_feedback_prediction_sum_total{OF_TASK}": "0+10.5x400",
    f"recsys_feedback_label_sum_total{OF_TASK}": "0+10x400",
    f"recsys_feature_cells_total{OF_FEATURE}": "0+10x400",
    f"recsys_missing_cells_total{OF_FEATURE}": "0+1x400",
    'recsys_entity_keys_total{kind="users"}': "0+10x400",
    'recsys_entity_misses_total{kind="users"}': "0+1x400",
    'recsys_model_age_seconds{model="m", version="1"}': "70000+60x400",
    'recsys_model_traffic_ratio{model="m", version="1"}': "1+0x400",
}


@promtool
@pytest.mark.parametrize("alert", [*CASES, None])
def test_alerts_fire_when_they_should_and_rest_else(tmp_path, alert):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(alerts()["spec"]))
    numbers = QUIET if alert is None else CASES[alert]
    firing = f'ALERTS{{alertstate="firing", alertname="{alert}"}}'
    asked = (
        {"expr": 'count(ALERTS{alertstate="firing"})', "exp_samples": []}
        if alert is None
        else {"expr": f"count({firing}) > bool 0", "exp_samples": [{"value": 1}]}
    )
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": series, "values": values}
                    for series, values in numbers.items()
                ],
                "promql_expr_test": [asked | {"eval_time": "395m"}],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    done = run_promtool(tmp_path, "test", "rules", "test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
