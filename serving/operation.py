"""One route: who answers it, what it takes and what it gives, said in one place.

The app is made of these, and so is the OpenAPI document: what is served is described,
and what is described is served.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.fault import ErrorBody
from serving.keys import Scope
from serving.model_set import ServedModel
from serving.service import Service

__all__ = [
    "BINARY",
    "OF_A_BODY",
    "Access",
    "Content",
    "Operation",
    "Page",
    "Parameter",
    "Schema",
    "route_of",
    "service_of",
    "text",
]

Schema = dict[str, Any]
"""A JSON schema."""

Content = Mapping[str, type[Struct] | Schema]
"""What a body holds, by media type."""

Access = Scope | Literal["any", "open"]
"""What a caller needs: a key of that scope, a key of any scope, or none at all."""

Page = Literal["docs", "metrics"]
"""What a server may open to callers without a key."""

BINARY: Schema = {"type": "string", "format": "binary"}
"""A body that is no text."""

OF_A_BODY = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.GATEWAY_TIMEOUT,
)
"""What may be answered to a route that reads a body and asks a model."""


@final
@dataclass(frozen=True)
class Parameter:
    """What a request has beside its body.

    Attributes:
        name: Of the header or of the part of the path.
        where: Which of them.
        description: For people.
        schema: Of the value.
        required: Parts of a path always are.
        example: From the first served model; its name, say.
    """

    name: str
    where: Literal["path", "header"]
    description: str
    schema: Schema = field(default_factory=lambda: {"type": "string"})
    required: bool = False
    example: Callable[[ServedModel], object] | None = None


@final
@dataclass(frozen=True)
class Operation:
    """A method of a path.

    Attributes:
        method: Of HTTP.
        path: With parameters in braces, each of which ``parameters`` describes.
        handle: Answers; what it raises becomes an error body.
        access: Who may ask, where the server has keys. Has no default, so that nobody
            opens a route without a thought.
        summary: A few words.
        answers: Content of status 200.
        description: All that the summary leaves out.
        takes: Content of the body, if the route reads one.
        examples: By media type, bodies that the first served model answers.
        parameters: Headers and parts of the path.
        headers: Of answers, with what they tell.
        faults: Other statuses that are answered.
        fault: Body of these.
        uses: Types that schemas among the above refer to.
        page: What it belongs to, if servers may open it by ``auth.public``.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    handle: Callable[[Request], Awaitable[Response]]
    access: Access
    summary: str
    answers: Content
    description: str = ""
    takes: Content = field(default_factory=dict)
    examples: Mapping[str, Callable[[ServedModel], object]] = field(
        default_factory=dict
    )
    parameters: tuple[Parameter, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[HTTPStatus, ...] = ()
    fault: type[Struct] = ErrorBody
    uses: tuple[type[Struct], ...] = ()
    page: Page | None = None

    def __post_init__(self) -> None:
        told = {p.name for p in self.parameters if p.where == "path"}
        missing = {
            part[1:-1] for part in self.path.split("/") if part.startswith("{")
        } ^ told
        if missing:
            raise ValueError(f"{self.path}: parameters differ in {sorted(missing)}")

    def access_of(self, public: Collection[Page]) -> Access:
        """Say who may ask where ``public`` pages are open."""
        return "open" if self.page in public else self.access


def route_of(operation: Operation) -> Route:
    """Give the route that serves ``operation``."""
    return Route(operation.path, operation.handle, methods=[operation.method])


def service_of(request: Request) -> Service:
    """Give the service of the app that got ``request``."""
    service: Service = request.app.state.service
    return service


def text(media_type: str) -> dict[str, Schema]:
    """Describe a body of text."""
    return {media_type: {"type": "string"}}
