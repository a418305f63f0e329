"""Replicas that add up their counts through a folder."""

import os
import signal
import subprocess
import sys

from prometheus_client.metrics_core import Metric

from serving.observability.ledger import Ledger
from serving.observability.node import NodeFolder

OTHER = """
import sys
from pathlib import Path
from serving.observability.ledger import Ledger
from serving.observability.node import NodeFolder
ledger = Ledger()
node = NodeFolder(Path(sys.argv[1]), ledger)
ledger.add("recsys_deadline_missed_total", "/v1/rank", by=5.0)
ledger.set("recsys_replicas", to=1.0)
ledger.set("recsys_queue_wait_seconds", to=0.5)
ledger.observe("recsys_batch_rows", "m", value=3.0)
node.write()
print("written", flush=True)
sys.stdin.read()
"""


def told(metrics: list[Metric]):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for metric in metrics
        for sample in metric.samples
    }


def filled(folder):
    ledger = Ledger()
    node = NodeFolder(folder, ledger)
    ledger.add("recsys_deadline_missed_total", "/v1/rank", by=2.0)
    ledger.set("recsys_replicas", to=1.0)
    ledger.set("recsys_queue_wait_seconds", to=0.25)
    ledger.observe("recsys_batch_rows", "m", value=3.0)
    ledger.observe("recsys_batch_rows", "m", value=4_000.0)
    node.write()
    return ledger, node


def test_one_replica_reads_what_it_wrote(tmp_path):
    ledger, node = filled(tmp_path)
    alone, shared = told(ledger.collect()), told(node.collect())
    assert shared == alone
    ledger.add("recsys_deadline_missed_total", "/v1/rank")
    node.write()
    key = ("recsys_deadline_missed_total", ("route", "/v1/rank"))
    assert told(node.collect())[key] == 3.0
    node.close()


def test_sums_are_of_all_replicas_and_gauges_of_the_living(tmp_path):
    _, node = filled(tmp_path)
    missed = ("recsys_deadline_missed_total", ("route", "/v1/rank"))
    rows = ("recsys_batch_rows_bucket", ("le", "5.0"), ("model", "m"))
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "written\n"
        both = told(node.collect())
        os.kill(other.pid, signal.SIGKILL)
    assert (both[missed], both[rows]) == (7.0, 2.0)
    assert both["recsys_replicas",] == 2.0
    assert both["recsys_queue_wait_seconds",] == 0.5
    alone = told(node.collect())
    # What it counted happened, so it stays; what it was is over.
    assert (alone[missed], alone[rows]) == (7.0, 2.0)
    assert alone["recsys_replicas",] == 1.0
    assert alone["recsys_queue_wait_seconds",] == 0.25
    node.close()


def test_gauges_of_a_model_that_is_gone_leave(tmp_path):
    ledger, node = filled(tmp_path)
    for version in ("1", "2"):
        ledger.clear_gauges()
        ledger.set("recsys_model_age_seconds", "m", version, to=1.0)
        node.write()
    (age,) = [key for key in told(node.collect()) if "model_age" in key[0]]
    assert age[-1] == ("version", "2")
    node.close()


def test_a_replica_that_ends_takes_its_gauges_back(tmp_path):
    _, node = filled(tmp_path)
    node.close()
    _, after = filled(tmp_path)
    key = ("recsys_deadline_missed_total", ("route", "/v1/rank"))
    assert told(after.collect())[key] == 4.0
    assert told(after.collect())["recsys_replicas",] == 1.0
    after.close()
