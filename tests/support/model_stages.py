"""Every kind of every stage of a model, tiny; a new kind is one line here."""

import itertools

from recsys_mtl.config.bottom import APEMSpec, DTRNSpec, FlatSpec
from recsys_mtl.config.chain import AITMSpec, ESMMSpec, IndependentSpec
from recsys_mtl.config.gating import (
    CGCSpec,
    DirectSpec,
    HoMESpec,
    MMoESpec,
    PLESpec,
    SharedBottomSpec,
)
from recsys_mtl.config.task import BinaryTask, OrdinalTask, SurvivalTask, ValueTask
from recsys_mtl.config.tower import (
    DCNV2Spec,
    FinalMLPSpec,
    MLPTowerSpec,
    StreamSpec,
    WideDeepSpec,
)

__all__ = ["STAGES", "TASKS", "each_once", "each_stack", "name_of"]

# Of every kind of label one or more; a chain needs two that are binary.
TASKS = (
    ValueTask(kind="value", name="watch", label="watch_s"),
    BinaryTask(kind="binary", name="order", label="order"),
    SurvivalTask(kind="survival", name="leave", time="s", event="e", horizons=(2.0,)),
    BinaryTask(kind="binary", name="click", label="click"),
    ValueTask(kind="value", name="amount", label="amount", loss="squared"),
    ValueTask(
        kind="value", name="spend", label="spend", loss="zero_inflated_log_normal"
    ),
    OrdinalTask(kind="ordinal", name="rating", label="rating", levels=3),
)
STEPS = ("click", "order")
GROUPS = {
    "acts": ("order", "click", "leave"),
    "amounts": ("watch", "amount", "spend", "rating"),
}

STAGES = {
    "bottom": [
        FlatSpec(),
        DTRNSpec(kind="dtrn", width=8, code_dim=3, hidden=(6,)),
        APEMSpec(
            kind="apem", num_layers=2, num_groups=2, num_inducing=3, num_indicators=2
        ),
    ],
    "gating": [
        DirectSpec(),
        SharedBottomSpec(hidden=(8,)),
        MMoESpec(hidden=(8, 6), num_experts=3),
        CGCSpec(kind="cgc", hidden=(8, 6)),
        PLESpec(kind="ple", levels=((8,), (6,)), num_specific=2, num_shared=1),
        HoMESpec(kind="home", levels=((8,), (6,)), lora_rank=2, groups=GROUPS),
    ],
    "chain": [
        IndependentSpec(),
        ESMMSpec(kind="esmm", steps=STEPS),
        AITMSpec(kind="aitm", steps=STEPS),
    ],
    "tower": [
        MLPTowerSpec(hidden=(5,)),
        MLPTowerSpec(hidden=(6, 5), batch_norm=True),
        FinalMLPSpec(
            kind="final_mlp",
            first=StreamSpec(hidden=(6, 4), context=("user", "item", "age")),
            second=StreamSpec(hidden=(8,)),
            gate_hidden=(30,),
            context_init_std=1.0,
            num_heads=2,
        ),
        DCNV2Spec(kind="dcn_v2", num_layers=1, hidden=(5,)),
        WideDeepSpec(kind="wide_deep", hidden=(5,), batch_norm=True),
    ],
}


# Together every head, few in each: what it costs to export grows with them.
MIXES = (("click", "order"), ("watch", "leave"), ("rating",), ("spend", "amount"))


def name_of(combination) -> str:
    """Name a combination of stages for a test."""
    return "-".join(spec.kind for spec in combination)


def each_once() -> list[tuple]:
    """Pick few combinations in which every kind of every stage is."""
    lists = list(STAGES.values())
    return [
        tuple(kinds[k % len(kinds)] for kinds in lists)
        for k in range(max(map(len, lists)))
    ]


def each_stack() -> list[tuple[dict, tuple]]:
    """Pair every bottom, gating and tower with a few tasks and a chain that fits.

    Tasks take turns, so that every kind of a stage meets every head.
    """
    lists = [list(enumerate(STAGES[name])) for name in ("bottom", "gating", "tower")]
    stacks = []
    for (b, bottom), (g, gating), (t, tower) in itertools.product(*lists):
        mix = MIXES[(b + g + t) % len(MIXES)]
        chain = STAGES["chain"][(g + t) % 3 if mix == STEPS else 0]
        stages = {"bottom": bottom, "gating": gating, "chain": chain, "tower": tower}
        if isinstance(gating, HoMESpec):
            stages["gating"] = gating.model_copy(update={"groups": _groups(mix)})
        stacks.append((stages, tuple(task for task in TASKS if task.name in mix)))
    return stacks


def _groups(names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Deal some tasks out to the groups they have among all."""
    own = {
        group: tuple(name for name in of if name in names)
        for group, of in GROUPS.items()
    }
    return {group: of for group, of in own.items() if of}
