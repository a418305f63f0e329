"""Boosted trees on KuaiRand, and what rows of the same millisecond are worth to them.

    python benchmarks/trees.py
    python benchmarks/trees.py --seeds 2

Needs RECSYS_MTL_DATA. A fifth of the log's rows were shown to their user in the same
millisecond as another: one answer of a feed holds several videos. Features made from
"the rows before this one" then know what the user did with videos shown together with
this one, which nothing that scores them can. LightGBM is trained on three tables:

- ``table``: the feature table of the recipe, strictly earlier events, histories as the
  newest three events;
- ``time``: features made by hand with pandas, from strictly earlier times;
- ``row``: the same, from all rows before, as ``cumsum`` and ``shift`` give them.

One setting for all, trees counted by validation AUC; newest fifth as test, read once.
Prints one JSON line a table: validation and test AUC a task, mean and standard
deviation over seeds. LightGBM has an environment of its own, in ``--cache``.
"""

import argparse
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from contender import peer_python, run

from pipelines.features import build_feature_tables
from recsys_mtl.config.load import load_recipe

_LIGHTGBM = "4.7.0"
_REQUIREMENTS = (
    f"lightgbm=={_LIGHTGBM}",
    "pandas<4",
    "pyarrow",
    "scikit-learn<2",
)


def main() -> None:
    """Build the recipe's table, then train on all three."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--cache", type=Path, default=default / "recsys-mtl")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    python = peer_python(
        options.cache / f"lightgbm-{_LIGHTGBM}", _REQUIREMENTS, module="lightgbm"
    )
    log = Path(os.environ["RECSYS_MTL_DATA"]) / "kuairand"
    with TemporaryDirectory() as folder:
        tables = Path(folder) / "tables"
        build_feature_tables(load_recipe("kuairand"), tables)
        for kind in ("table", "time", "row"):
            arguments = (kind, str(tables), str(log), str(options.seeds))
            line = run(python, "contender_lightgbm.py", *arguments)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
