"""What a server serves, refuses and takes of the machine: one tree of settings."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from recsys_mtl.config.score import ScoreSpec
from serving.entity_settings import EntitySettings, SnapshotSettings
from serving.observability.settings import ObservabilitySettings

__all__ = [
    "AuthSettings",
    "BatchingSettings",
    "Engine",
    "LimitSettings",
    "ModelSettings",
    "OverloadSettings",
    "ServedModels",
    "ServerSettings",
    "ServingSettings",
]

Engine = Literal["ray", "uvicorn"]
_SHARES_SLACK = 1e-6


def _name(got: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", got):
        raise ValueError(
            "must begin with a letter or digit and hold at most 100 letters, digits, "
            f"dots, dashes and underscores, for it stands in URLs; got {got!r}"
        )
    return got


ModelName = Annotated[str, AfterValidator(_name)]


def _folder(got: Path) -> Path:
    if "\0" in str(got):
        raise ValueError(
            f"must be a path, which has no NUL character; got {str(got)!r}"
        )
    return got


Folder = Annotated[Path, AfterValidator(_folder)]


def _sum_by_default(got: object) -> object:
    return {"kind": "sum", **got} if isinstance(got, dict) else got


Score = Annotated[ScoreSpec, BeforeValidator(_sum_by_default)]


class _Settings(BaseModel):
    """Immutable, and closed to names it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(_Settings):
    """A bundle to serve."""

    bundle: Folder = Field(description="folder that `run` made")
    name: ModelName | None = Field(
        None, description="to ask for it by; the recipe's name if left out"
    )
    traffic: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        None,
        description="share of the requests that name no model; shares add up to 1. "
        "Where no model has one, the first answers them all",
    )
    score: Score | None = Field(
        None,
        description="stands in for the recipe's score: `weights` by task, and `kind`, "
        "which is `sum` if left out, or `product`",
    )


class ServedModels(_Settings):
    """What may change while a server runs: models, traffic and scores."""

    models: tuple[ModelSettings, ...] = Field(
        (), description="bundles to serve, at least one"
    )

    @model_validator(mode="after")
    def _models_fit_together(self) -> Self:
        names = [model.name for model in self.models if model.name is not None]
        for i, model in enumerate(self.models):
            if model.name is not None and names.count(model.name) > 1:
                raise ValueError(
                    f"models[{i}].name: {model.name!r} is taken by another model; "
                    "names must differ"
                )
        shares = [model.traffic for model in self.models if model.traffic is not None]
        if shares and abs(sum(shares) - 1.0) > _SHARES_SLACK:
            raise ValueError(
                f"models: the traffic of all must add up to 1, got {sum(shares):g}"
            )
        return self

    def under(self, folder: Path) -> Self:
        """Let relative paths start from ``folder``."""
        models = tuple(
            model.model_copy(update={"bundle": folder / model.bundle})
            for model in self.models
        )
        return self.model_copy(update={"models": models})

    def resolved(self) -> Self:
        """Follow links, so that a link that leads elsewhere is another model."""
        # Unlike Path.resolve, realpath leaves a link to itself to whoever opens it.
        models = tuple(
            model.model_copy(update={"bundle": Path(os.path.realpath(model.bundle))})
            for model in self.models
        )
        return self.model_copy(update={"models": models})

    def only_models(self) -> "ServedModels":
        """Leave out what cannot change while a server runs."""
        return ServedModels(models=self.models)


class ServerSettings(_Settings):
    """Where the server listens, and on how many processes it runs."""

    engine: Engine = Field(
        "ray", description="`ray`: replicas behind HAProxy; `uvicorn`: one process"
    )
    host: str = Field(
        "127.0.0.1", description="address to listen on; 0.0.0.0 for all networks"
    )
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        8000, description="0 takes any free one"
    )
    replicas: PositiveInt = Field(
        1, description="processes that score; uvicorn has one"
    )
    threads: PositiveInt = Field(
        1, description="compute threads of a replica; more replicas usually pay better"
    )
    shutdown_timeout_s: PositiveFloat = Field(
        10.0, description="time that running requests have to finish when stopped"
    )


class LimitSettings(_Settings):
    """What a single request may be."""

    max_body_bytes: PositiveInt = Field(
        2 * 1024 * 1024, description="larger bodies get 413"
    )
    max_items: PositiveInt = Field(
        2_000,
        description="candidates of a rank request, rows of a score request; more get "
        "422",
    )
    max_columns: PositiveInt = Field(
        1_000, description="columns of an Arrow table or tensors; more get 422"
    )
    max_cell_bytes: PositiveInt = Field(
        32 * 1024 * 1024,
        description="what the values of an Arrow table take once none is shared; "
        "larger ones get 422",
    )
    header_timeout_s: PositiveFloat = Field(
        10.0, description="time a connection has to send the headers of a request"
    )
    body_timeout_s: PositiveFloat = Field(
        10.0, description="time a request has to send its body; slower ones get 408"
    )


class BatchingSettings(_Settings):
    """How requests that wait are put together."""

    max_batch_rows: PositiveInt = Field(
        2_048,
        description="candidates scored in one go; a single request may have more",
    )
    inline_s: float = Field(
        0.003,
        ge=0.0,
        allow_inf_nan=False,
        description="batches that should take less are scored by the thread that reads "
        "and answers, which saves two changes of threads; 0 for none",
    )


class OverloadSettings(_Settings):
    """What a replica does when more is asked of it than it can answer."""

    max_queued_requests: PositiveInt = Field(
        256, description="requests of a replica that wait or are read; more get 429"
    )
    max_queued_rows: PositiveInt = Field(
        50_000, description="their candidates; more get 429"
    )
    max_body_bytes_held: PositiveInt = Field(
        64 * 1024 * 1024,
        description="bytes of bodies that a replica holds at once; more get 429",
    )
    max_wait_s: PositiveFloat = Field(
        0.05,
        description="requests that wait longer for others, or would by the running "
        "estimate, get 429: the p99 to keep under overload, but for a batch or two",
    )
    swap_patience: float = Field(
        6.0,
        ge=1.0,
        allow_inf_nan=False,
        description="factor on `max_wait_s` while models change and shortly after, for "
        "loading takes processors from requests; 1 to rather refuse some of them",
    )
    default_timeout_s: PositiveFloat = Field(
        5.0,
        description="time a request has where it names none in "
        "`x-request-timeout-seconds`; late ones get 504",
    )
    max_timeout_s: PositiveFloat = Field(
        60.0, description="longest time that a request may ask for; longer is cut"
    )
    requests_per_s: PositiveFloat | None = Field(
        None,
        description="what each key may ask of the server, or each client address "
        "where there are no keys; more get 429. No limit if left out",
    )
    burst: PositiveInt | None = Field(
        None, description="requests at once under that rate; one second's if left out"
    )

    @model_validator(mode="after")
    def _burst_of_a_rate(self) -> Self:
        if self.burst is not None and self.requests_per_s is None:
            raise ValueError(
                "burst: has no effect without requests_per_s; give both, or take it out"
            )
        return self


class AuthSettings(_Settings):
    """Who may ask."""

    keys_file: Path | None = Field(
        None,
        description="YAML or JSON with the hashes of the keys, as `recsys-mtl keys "
        "new` prints them; read again when it changes",
    )
    open_to_network: bool = Field(
        False,
        description="serve other machines without keys, since something in front "
        "checks who asks",
    )
    public: tuple[Literal["docs", "metrics"], ...] = Field(
        (),
        description="pages that need no key: `docs` is /docs with /openapi.json, "
        "`metrics` is /metrics",
    )


class ServingSettings(ServedModels):
    """All settings of a server; each has a default but the models.

    Example:
        >>> ServingSettings.of_bundle("b", server={"port": 0}).models[0].bundle.name
        'b'
    """

    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    batching: BatchingSettings = BatchingSettings()
    overload: OverloadSettings = OverloadSettings()
    auth: AuthSettings = AuthSettings()
    observability: ObservabilitySettings = ObservabilitySettings()
    entities: EntitySettings = SnapshotSettings()
    verbose: bool = Field(False, description="show the logs of the libraries")

    @classmethod
    def of_bundle(cls, bundle: str | os.PathLike[str], **settings: object) -> Self:
        """Serve one bundle under the name that its recipe gave it."""
        models = [{"bundle": Path(bundle)}]
        return cls.model_validate({"models": models, **settings})

    @model_validator(mode="after")
    def _one_replica_of_uvicorn(self) -> Self:
        server = self.server
        if server.engine == "uvicorn" and server.replicas != 1:
            raise ValueError(
                f"server.replicas: uvicorn runs one replica, got {server.replicas}; "
                "use the engine ray"
            )
        return self
