"""Look through a bundle, and write down what there is to see."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys_mtl.errors import ArtifactError, ConfigError
from recsys_mtl.export.bundle import load_bundle
from recsys_mtl.features.manifest import FeatureManifest
from recsys_mtl.progress import OnProgress, silent
from recsys_mtl.xray.examine import examine
from recsys_mtl.xray.page import write_xray
from recsys_mtl.xray.result import XRay

__all__ = ["xray_bundle"]


def xray_bundle(
    bundle: Path,
    tables: Path | None = None,
    output: Path | None = None,
    *,
    split: str = "valid",
    rows: int = 20_000,
    shuffles: int = 5,
    on_progress: OnProgress = silent,
) -> tuple[XRay, Path]:
    """X-ray a bundle; nothing of it is changed.

    If ``history.json`` lies beside the bundle, as in a run, the page also shows how
    tasks agreed over the training.

    Args:
        bundle: Folder that ``write_bundle`` wrote.
        tables: Its feature tables; ``tables`` beside the bundle if left out.
        output: The page, an ``.html`` file; a ``.json`` file of all figures is written
            beside it. ``xray.html`` beside the bundle if left out.
        split: ``train``, ``valid`` or ``test``.
        rows: To read at most for all but the embedding tables.
        shuffles: Of each feature.
        on_progress: Told of each part.

    Returns:
        What was found, and where the page is.

    Raises:
        ArtifactError: The bundle or the tables cannot be used, or are not of each
            other.
        ConfigError: The page cannot be named so, or cannot lie there.
    """
    run = bundle.resolve().parent
    tables = tables if tables is not None else run / "tables"
    page = output if output is not None else run / "xray.html"
    if page.suffix != ".html":
        raise ConfigError(f"the page must end in .html, got {page}; name it so")
    if page.resolve().is_relative_to(bundle.resolve()):
        raise ConfigError(
            f"the page must lie outside the bundle, whose files are sealed, got {page};"
            " choose another place"
        )
    loaded = load_bundle(bundle)
    digest = FeatureManifest.load(tables).recipe_digest
    if digest != loaded.info.recipe_digest:
        raise ArtifactError(
            f"{tables} must be the feature tables that the bundle was trained on "
            f"(digest {loaded.info.recipe_digest[:12]}), got {digest[:12]}; name them "
            "with --tables"
        )
    found = examine(
        loaded.network,
        tables,
        loaded.recipe,
        split=split,
        limit=rows,
        shuffles=shuffles,
        about={
            "name": loaded.recipe.name,
            "bundle": loaded.version,
            "history": _history(run / "history.json"),
        },
        on_progress=on_progress,
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    write_xray(page, found)
    text = json.dumps(found.model_dump(mode="json"), indent=1, allow_nan=False)
    page.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    return found, page


def _history(path: Path) -> Sequence[Mapping[str, Any]]:
    """Cosines by check; none if there is no history or it is older than they are."""
    if not path.exists():
        return ()
    return [
        {"step": check["step"], "cosines": check["gradient_cosines"]}
        for check in json.loads(path.read_text(encoding="utf-8"))
        if check.get("gradient_cosines")
    ]
