"""How tasks share experts: one spec per gating, told apart by ``kind``."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from recsys_mtl.config._base import Name, Rate, Spec, Widths

__all__ = [
    "CGCSpec",
    "DirectSpec",
    "GatingSpec",
    "HoMESpec",
    "MMoESpec",
    "PLESpec",
    "SharedBottomSpec",
]


class DirectSpec(Spec):
    """No experts: every tower reads the bottom. For complete single-task models."""

    kind: Literal["direct"] = "direct"


class SharedBottomSpec(Spec):
    """Every task reads one expert unchanged."""

    kind: Literal["shared_bottom"] = "shared_bottom"
    hidden: Widths = (256, 128)
    dropout: Rate = 0.0


class MMoESpec(Spec):
    """Every task mixes shared experts with its own softmax gate."""

    kind: Literal["mmoe"] = "mmoe"
    hidden: Widths = (256, 128)
    num_experts: PositiveInt = 4
    dropout: Rate = 0.0


class CGCSpec(Spec):
    """Every task mixes experts of its own with shared ones: PLE of one level."""

    kind: Literal["cgc"]
    hidden: Widths = (256, 128)
    num_specific: PositiveInt = Field(1, description="experts of each task")
    num_shared: NonNegativeInt = Field(2, description="experts of all tasks")
    dropout: Rate = 0.0


class PLESpec(Spec):
    """Levels of task-specific and shared experts, with a shared branch between."""

    kind: Literal["ple"]
    levels: Annotated[tuple[Widths, ...], Field(min_length=1)] = Field(
        ((256,), (128,)), description="for each level the widths of an expert's layers"
    )
    num_specific: PositiveInt = Field(1, description="experts of each task, a level")
    num_shared: NonNegativeInt = Field(2, description="experts of all tasks, a level")
    dropout: Rate = 0.0


class HoMESpec(Spec):
    """Experts of groups of tasks, then of tasks: normalised, and with gated inputs."""

    kind: Literal["home"]
    groups: (
        Annotated[
            dict[Name, Annotated[tuple[Name, ...], Field(min_length=1)]],
            Field(min_length=1),
        ]
        | None
    ) = Field(
        None,
        description="for each group its tasks, which learn alike; every task is in one "
        "of them; one group of all tasks if left out",
    )
    levels: tuple[Widths, Widths] = Field(
        ((256,), (128,)),
        description="widths of an expert's layers at the level of groups, and at that "
        "of tasks",
    )
    num_meta_shared: PositiveInt = Field(
        2, description="experts of all groups, at the level of groups"
    )
    num_meta_group: PositiveInt = Field(
        1, description="experts of each group, at the level of groups"
    )
    num_task_shared: PositiveInt = Field(
        1, description="experts of all tasks, at the level of tasks"
    )
    num_task_group: PositiveInt = Field(
        1, description="experts of each group, at the level of tasks"
    )
    num_task_specific: PositiveInt = Field(
        1, description="experts of each task, at the level of tasks"
    )
    lora_rank: PositiveInt = Field(
        16, description="width between the two factors of a gate on features"
    )
    num_lora: PositiveInt = Field(
        2, description="low-rank gates that a gate on features mixes"
    )
    dropout: Rate = 0.0


GatingSpec = Annotated[
    DirectSpec | SharedBottomSpec | MMoESpec | CGCSpec | PLESpec | HoMESpec,
    Field(discriminator="kind"),
]
