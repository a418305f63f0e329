"""Groups of tasks, checked against the tasks that there are."""

from collections.abc import Sequence

from recsys_mtl.config.gating import GatingSpec, HoMESpec
from recsys_mtl.config.reference import near
from recsys_mtl.config.task import TaskSpec

__all__ = ["group_faults"]


def group_faults(gating: GatingSpec, tasks: Sequence[TaskSpec]) -> list[str]:
    """Find what is wrong between groups and tasks, each as ``path: sentence``."""
    if not isinstance(gating, HoMESpec) or gating.groups is None:
        return []
    names = [task.name for task in tasks]
    faults: list[str] = []
    group_of: dict[str, str] = {}
    for group, members in gating.groups.items():
        for k, name in enumerate(members):
            where = f"model.gating.groups.{group}[{k}]"
            if name not in names:
                faults.append(
                    f"{where}: names {name!r}, which is no task{near(name, names)}"
                )
            elif name in group_of:
                faults.append(
                    f"{where}: task {name!r} is in group {group_of[name]!r} already; "
                    "put each task in one group"
                )
            else:
                group_of[name] = group
    missing = [name for name in names if name not in group_of]
    if missing:
        faults.append(
            f"model.gating.groups: must hold every task, got none for "
            f"{', '.join(missing)}; add to {' or '.join(gating.groups)}, or to a new "
            "group"
        )
    return faults
