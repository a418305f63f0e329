"""Which stages of a run are done, so that a second start goes on where one stopped."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import final

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys_mtl.errors import ArtifactError

__all__ = ["Ledger"]

_FILE = "stages.json"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    seconds: float


class _Stages(BaseModel):
    model_config = ConfigDict(extra="forbid")

    stages: dict[str, _Entry] = {}


@final
class Ledger:
    """Keeps ``stages.json`` of one run's folder.

    Args:
        folder: Of the run; made if need be.

    Raises:
        ArtifactError: The folder holds something else, or a ledger that is broken.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        if folder.is_dir() and not self._path.exists() and any(folder.iterdir()):
            raise ArtifactError(
                f"{folder} is not empty and holds no run ({_FILE} is missing); choose "
                "another --output"
            )
        folder.mkdir(parents=True, exist_ok=True)
        try:
            text = self._path.read_text() if self._path.exists() else "{}"
            self._stages = _Stages.model_validate_json(text)
        except ValidationError as fault:
            raise ArtifactError(
                f"{self._path} is no list of stages of this version ({fault}); start "
                "anew with --overwrite"
            ) from fault
        self._write()

    @property
    def seconds(self) -> dict[str, float]:
        """How long each stage took when it was done, in order."""
        return {name: entry.seconds for name, entry in self._stages.stages.items()}

    def is_done(
        self, stage: str, key: str, output: Path, *, again: bool = False
    ) -> bool:
        """Tell whether ``stage`` was done on the same input.

        Args:
            stage: Its name.
            key: Identifies all that the stage depends on.
            output: What it made; a stage whose output is gone is not done.
            again: Whether a stage that was done on another input is to be done again.

        Raises:
            ArtifactError: It was done on another input, and not to be done again.
        """
        entry = self._stages.stages.get(stage)
        if entry is None or not output.exists():
            return False
        if entry.key != key and again:
            return False
        if entry.key != key:
            raise ArtifactError(
                f"{output} was made by another recipe or input (stage {stage!r}); "
                "start anew with --overwrite, or choose another --output"
            )
        return True

    def record(self, stage: str, key: str, work: Callable[[], None]) -> None:
        """Do ``work``, and note that it is done once it is."""
        start = time.perf_counter()
        work()
        seconds = round(time.perf_counter() - start, 3)
        self._stages.stages.pop(stage, None)  # a stage done again comes last
        self._stages.stages[stage] = _Entry(key=key, seconds=seconds)
        self._write()

    def _write(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._stages.model_dump(), indent=1) + "\n")
        temporary.replace(self._path)
