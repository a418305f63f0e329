"""How the network is fitted."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from recsys_mtl.config._base import Fraction, Spec

__all__ = [
    "AdamEmbeddings",
    "ConstantSchedule",
    "DenseAdam",
    "EarlyStopping",
    "EmbeddingOptimizerSpec",
    "PlateauSchedule",
    "RowwiseAdagradEmbeddings",
    "ScheduleSpec",
    "TrainSpec",
]


class RowwiseAdagradEmbeddings(Spec):
    """Updates touched rows inside the backward pass: the choice for large tables."""

    kind: Literal["rowwise_adagrad"] = "rowwise_adagrad"
    learning_rate: PositiveFloat = 0.02


class AdamEmbeddings(Spec):
    """Dense Adam on whole tables: for small tables and published reproductions."""

    kind: Literal["adam"]
    learning_rate: PositiveFloat = 1e-3
    l2: NonNegativeFloat = Field(
        0.0, description="adds l2/2 * ||W||^2 of whole tables to the loss"
    )


EmbeddingOptimizerSpec = Annotated[
    RowwiseAdagradEmbeddings | AdamEmbeddings, Field(discriminator="kind")
]


class DenseAdam(Spec):
    """AdamW for everything but embedding tables."""

    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0


class ConstantSchedule(Spec):
    """The learning rates stay."""

    kind: Literal["constant"] = "constant"


class PlateauSchedule(Spec):
    """Multiplies all learning rates by ``factor`` at every check without progress."""

    kind: Literal["plateau"]
    factor: Fraction = 0.1
    floor: PositiveFloat = Field(1e-6, description="least learning rate")


ScheduleSpec = Annotated[
    ConstantSchedule | PlateauSchedule, Field(discriminator="kind")
]


class EarlyStopping(Spec):
    """Keeps the weights of the best check on validation data."""

    metric: str = Field(
        "mean.auc",
        description="`TASK.METRIC` or `mean.METRIC` over tasks that have it; auc, "
        "rank_correlation, kappa and c_index rise, log_loss, rmse, mae and "
        "integrated_brier fall",
    )
    patience: PositiveInt = Field(
        2, description="checks without progress before a stop"
    )
    min_delta: NonNegativeFloat = 1e-6


class TrainSpec(Spec):
    """One run of the training loop."""

    seed: int = 0
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 1024
    embedding_optimizer: EmbeddingOptimizerSpec = RowwiseAdagradEmbeddings()
    optimizer: DenseAdam = DenseAdam()
    warmup_steps: NonNegativeInt = Field(0, description="linear rise of learning rates")
    schedule: ScheduleSpec = ConstantSchedule()
    early_stopping: EarlyStopping = EarlyStopping()
    checks_per_epoch: PositiveInt = Field(1, description="validations in an epoch")
    clip_norm: PositiveFloat | None = Field(
        10.0, description="global gradient norm of all but fused embeddings"
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16: autocast; refused where the machine has none"
    )
    num_threads: PositiveInt | None = Field(
        None, description="compute threads of a worker; all its cores if left out"
    )
    shuffle_rows: PositiveInt = Field(
        262_144, description="rows mixed in memory; parts are mixed as well"
    )
