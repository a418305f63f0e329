"""Settings of what a server tells of itself."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

__all__ = ["LogSettings", "ObservabilitySettings", "TraceSettings"]


class _Settings(BaseModel):
    """Immutable, and closed to names it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LogSettings(_Settings):
    """Which requests are written down, one JSON object a line."""

    file: Path | None = Field(
        None, description="file to append to; standard error if left out"
    )
    request_rate: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.0,
        description="share of the requests, chosen by their id; failed and slow ones "
        "are always written",
    )
    slow_request_s: PositiveFloat = Field(
        1.0, description="requests that take longer are written with their stages"
    )
    id_key_file: Path | None = Field(
        None,
        description="key to hash ids of users with; without it they are left out",
    )


class TraceSettings(_Settings):
    """OpenTelemetry spans, one a stage."""

    enabled: bool = Field(
        False,
        description="make spans; OTEL_* variables say where they go and how many",
    )
    sample_rate: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.01,
        description="share of the requests without a `traceparent`, where "
        "OTEL_TRACES_SAMPLER says nothing",
    )
    file: Path | None = Field(
        None, description="file to append spans to, one JSON object a line"
    )

    @model_validator(mode="after")
    def _file_of_spans(self) -> Self:
        if self.file is not None and not self.enabled:
            raise ValueError("file: has no effect without enabled: true")
        return self


class ObservabilitySettings(_Settings):
    """How the server is seen from outside."""

    node_folder: Path | None = Field(
        None,
        description="private folder in which replicas of one machine add up their "
        "metrics; the engine ray makes one of its own",
    )
    feature_sample_interval_s: PositiveFloat = Field(
        10.0,
        description="missing and unseen values are counted in one request of each "
        "model in so many seconds",
    )
    feedback_window_bytes: Annotated[int, Field(ge=0)] = Field(
        32 * 1024 * 1024,
        description="memory for answers that feedback can be joined to; the oldest go "
        "first",
    )
    max_feedback_events: PositiveInt = Field(
        1_000, description="events of one request to /v1/feedback; more get 422"
    )
    remembered_feedback_events: Annotated[int, Field(ge=0)] = Field(
        100_000, description="ids of events by which duplicates are found"
    )
    log: LogSettings = LogSettings()
    trace: TraceSettings = TraceSettings()

    def under(self, folder: Path) -> Self:
        """Let relative paths begin at ``folder``."""
        changes: dict[str, object] = {
            "log": _under(self.log, folder, "file", "id_key_file"),
            "trace": _under(self.trace, folder, "file"),
        }
        if self.node_folder is not None:
            changes["node_folder"] = folder / self.node_folder
        return self.model_copy(update=changes)


def _under(settings: _Settings, folder: Path, *fields: str) -> _Settings:
    paths = {
        field: folder / given
        for field in fields
        if (given := getattr(settings, field)) is not None
    }
    return settings.model_copy(update=paths)
