"""What to change in a recipe, by what it has already."""

from recsys_mtl.config.model import ModelSpec

__all__ = [
    "on_collapse",
    "on_conflict",
    "on_degradation",
    "on_scale",
    "on_underfitting",
]

_RATE = "lower train.optimizer.learning_rate"
_FEWER_SHARED = {
    "cgc": "use fewer shared experts (gating.num_shared)",
    "ple": "use fewer shared experts (gating.num_shared)",
    "home": "use fewer shared experts (gating.num_meta_shared, gating.num_task_shared)",
}


def on_collapse(model: ModelSpec) -> str:
    """Say what to do about an expert that says nothing."""
    if model.gating.kind == "home":
        return f"{_capital(_RATE)}; experts are normalised and smooth already."
    return (
        "Normalise experts and let them pass negative values (gating: home), or "
        f"{_RATE}."
    )


def on_scale(model: ModelSpec) -> str:
    """Say what to do about an expert that is far louder or quieter than others."""
    if model.gating.kind == "home":
        return (
            f"{_capital(_RATE)}; experts are normalised already, and it is their "
            "learned scales that went apart."
        )
    return "Normalise experts, so that gates can weigh them fairly (gating: home)."


def on_degradation(model: ModelSpec) -> str:
    """Say what to do about a shared expert that one task uses, or none."""
    match model.gating.kind:
        case "cgc" | "ple" as kind:
            return f"{_capital(_FEWER_SHARED[kind])}: tasks have experts of their own."
        case "home" as kind:
            return (
                f"{_capital(_FEWER_SHARED[kind])}, or put tasks that share little into "
                "different groups (gating.groups)."
            )
        case _:
            return (
                "Give tasks experts of their own, so that shared ones can stay shared "
                "(gating: ple or home), or use fewer experts."
            )


def on_underfitting(model: ModelSpec) -> str:
    """Say what to do about a task that neglects its own experts."""
    kind = model.gating.kind
    fewer = _FEWER_SHARED.get(kind, "use fewer shared experts")
    if kind == "home":
        return f"{_capital(fewer)}, or raise the weight of the task."
    return (
        "Add own experts to the mixture unweighed (gating: home, whose self gates do), "
        f"or {fewer}."
    )


def on_conflict(model: ModelSpec) -> str:
    """Say what to do about two tasks that pull shared parameters apart."""
    match model.gating.kind:
        case "home":
            ways = ["Put them into different groups (gating.groups)"]
        case "cgc" | "ple":
            ways = ["Put them into different groups (gating: home)"]
        case _:
            ways = ["Give each experts of its own (gating: ple or home)"]
    if model.bottom.kind == "flat":
        ways.append("give each a bottom of its own (bottom: dtrn)")
    return ", ".join([*ways, "or lower the weight of the less important task."])


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
