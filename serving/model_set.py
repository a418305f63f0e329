"""The models of a server, and which of them answers a request."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from http import HTTPStatus
from os.path import realpath
from pathlib import Path
from typing import Literal, Self, final

import msgspec

from recsys_mtl.errors import ConfigError
from recsys_mtl.export.bundle import Bundle, load_bundle
from recsys_mtl.export.info import bundle_digest, check_bundle
from recsys_mtl.rank.card import ModelCard
from recsys_mtl.rank.column import unknown_name
from recsys_mtl.rank.ranker import Ranker
from serving.fault import HttpFault
from serving.settings import ModelSettings

__all__ = ["ChosenBy", "ModelSet", "ServedModel", "load_models", "share_point"]

ChosenBy = Literal["request", "traffic", "default"]
"""Why a model answers: the request named it, traffic is shared and this user falls to
it, or it is the one that answers whatever names none."""


@final
@dataclass(frozen=True, eq=False)
class ServedModel:
    """A ranker under the name that this server gives it; equal to itself alone.

    Attributes:
        name: To ask for it by.
        ranker: What answers.
        traffic: Share of the requests that name no model.
        card: The ranker's, under this name.
    """

    name: str
    ranker: Ranker
    traffic: float
    card: ModelCard = field(init=False)

    def __post_init__(self) -> None:
        card = msgspec.structs.replace(self.ranker.card, name=self.name)
        object.__setattr__(self, "card", card)


@final
@dataclass(frozen=True)
class ModelSet:
    """Models by name: a value that is replaced whole, never changed.

    Attributes:
        models: In the order of the settings; names differ, traffic adds up to 1.

    Raises:
        ConfigError: Two models have one name, or there is none.
    """

    models: tuple[ServedModel, ...]
    _by_name: dict[str, ServedModel] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("a server needs one model or more, got none")
        by_name: dict[str, ServedModel] = {}
        for model in self.models:
            if model.name in by_name:
                raise ConfigError(
                    f"two models are called {model.name!r}, as their recipes have it; "
                    "give them names in models[].name of the settings"
                )
            by_name[model.name] = model
        object.__setattr__(self, "_by_name", by_name)

    @classmethod
    def of(cls, rankers: Mapping[str, Ranker]) -> Self:
        """Take rankers by name; the first answers requests that name none."""
        return cls(
            tuple(
                ServedModel(name, ranker, 0.0 if i else 1.0)
                for i, (name, ranker) in enumerate(rankers.items())
            )
        )

    def named(self, name: str) -> ServedModel:
        """Find a model.

        Raises:
            HttpFault: 404 if there is none of that name.
        """
        if name in self._by_name:
            return self._by_name[name]
        fault = unknown_name("model", name, self._by_name)
        raise HttpFault(HTTPStatus.NOT_FOUND, "not_found", fault.message, fault.field)

    def choose(self, name: str | None, unit: str) -> tuple[ServedModel, ChosenBy]:
        """Say which model answers, and why.

        Args:
            name: Of the request's wish, if it has one.
            unit: Id of the user, so that one user always gets one model; of the
                request where there is no user.

        Raises:
            HttpFault: 404 if no model has the name.
        """
        if name is not None:
            return self.named(name), "request"
        sharing = [model for model in self.models if model.traffic > 0.0]
        if len(sharing) == 1:
            return sharing[0], "default"
        point, end = share_point(unit), 0.0
        for model in sharing:
            end += model.traffic
            if point < end:
                return model, "traffic"
        return sharing[-1], "traffic"  # shares that add up to a hair below 1


def share_point(unit: str) -> float:
    """Place a user in [0, 1), the same on every replica and for ever.

    The first 53 bits of sha256 of ``traffic``, a zero byte and the unit in UTF-8: as
    many as a float holds.

    Example:
        >>> round(share_point("user-1"), 6)
        0.955424
    """
    digest = sha256(b"traffic\0" + unit.encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)


def load_models(
    models: Sequence[ModelSettings], *, known: Iterable[ServedModel] = ()
) -> ModelSet:
    """Verify and load the bundles of the settings.

    Args:
        models: Folders, names, shares and scores.
        known: Models whose bundles are not loaded again: from the same folder unless
            names or sizes of its files have changed, from another once its files are
            verified.

    Raises:
        ArtifactError: A bundle is incomplete, altered, or of another format.
        ConfigError: Two bundles have one name, or a score names what is no task.
    """
    rankers = _Rankers(model.ranker for model in known)
    nobody_shares = all(model.traffic is None for model in models)
    served = []
    for i, model in enumerate(models):
        ranker = rankers.load(model)
        traffic = float(i == 0) if nobody_shares else model.traffic or 0.0
        served.append(ServedModel(model.name or ranker.name, ranker, traffic))
    return ModelSet(tuple(served))


class _Rankers:
    """One a bundle and score; one bundle under several names is loaded once."""

    def __init__(self, known: Iterable[Ranker]) -> None:
        self._known = list(known)
        self._bundles: dict[Path, Bundle] = {}

    def load(self, model: ModelSettings) -> Ranker:
        bundle = self._bundle(Path(realpath(model.bundle)))
        try:
            ranker = Ranker(bundle, score=model.score)
        except ConfigError as fault:
            raise ConfigError(f"{model.bundle}: {fault}") from fault
        for other in self._known:
            same = other.bundle.digest == bundle.digest
            if same and other.card.scoring == ranker.card.scoring:
                return other
        self._known.append(ranker)
        return ranker

    def _bundle(self, folder: Path) -> Bundle:
        if folder not in self._bundles:
            self._bundles[folder] = self._checked(folder)
        return self._bundles[folder]

    def _checked(self, folder: Path) -> Bundle:
        digest = bundle_digest(folder)
        known = [*self._bundles.values(), *(r.bundle for r in self._known)]
        alike = [bundle for bundle in known if bundle.digest == digest]
        if not alike:
            return load_bundle(folder)
        # The next process to start will load this folder, not what lies in memory here:
        # a copy is verified like any other bundle. A folder that was verified when it
        # was loaded is not read again, or each change of a score would read all of it;
        # that files are missing or cut off shows without.
        own = [bundle for bundle in alike if bundle.folder == folder]
        check_bundle(folder, verify=not own)
        return (own or alike)[0]
