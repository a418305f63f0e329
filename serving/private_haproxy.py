"""HAProxy as Ray runs it, with its own figures kept private.

Ray's template lets HAProxy's metrics and statistics pages, which need no password,
listen on all addresses, and bounds no time for headers; there is no setting for either.
Ray does run whatever program ``RAY_SERVE_HAPROXY_BINARY_PATH`` names, so we name a
script that mends the file it is given and then becomes HAProxy.
"""

import os
import shlex
from pathlib import Path

__all__ = ["write_private_haproxy"]

_SCRIPT = """#!/bin/sh
# Mends the file after -f, then becomes HAProxy; runs again at every reload.
set -eu
previous= file=
for argument in "$@"; do
    if [ "$previous" = -f ]; then file=$argument; fi
    previous=$argument
done
[ -z "$file" ] || sed -i \\
    -e 's/^\\( *\\)bind \\**:{metrics}$/\\1bind 127.0.0.1:{metrics}/' \\
    -e 's/^\\( *\\)bind \\**:{stats}$/\\1bind 127.0.0.1:{stats}/' \\
    -e 's/^\\( *\\)option abortonclose$/&\\n\\1option forwardfor/' \\
    -e 's/^\\( *\\)option abortonclose/\\1timeout http-request {seconds}s\\n&/' \\
    "$file"
exec {binary} "$@"
"""


def write_private_haproxy(
    folder: Path, binary: str, *, metrics: int, stats: int, header_timeout_s: int
) -> Path:
    """Write the script.

    Args:
        folder: Where to.
        binary: HAProxy itself.
        metrics: Port of Prometheus' page.
        stats: Port of the page for people.
        header_timeout_s: Time that a request's headers may take.

    Returns:
        The script, for ``RAY_SERVE_HAPROXY_BINARY_PATH``.
    """
    path = folder / "haproxy"
    path.write_text(
        _SCRIPT.format(
            binary=shlex.quote(os.fspath(binary)),
            metrics=metrics,
            stats=stats,
            seconds=header_timeout_s,
        )
    )
    path.chmod(0o700)
    return path
