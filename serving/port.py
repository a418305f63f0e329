"""A port is taken before anything heavy is loaded, or refused with a sentence."""

import errno
import socket
from ipaddress import ip_address

from recsys_mtl.errors import EnvironmentFault

__all__ = ["claim_port", "free_ports", "is_loopback", "url_of"]


def claim_port(host: str, port: int) -> socket.socket:
    """Bind ``port``, without listening yet, so that nobody else gets it meanwhile.

    Args:
        host: Name or address to listen on.
        port: 0 for any free one.

    Raises:
        EnvironmentFault: The port is in use, forbidden, or no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as fault:
        raise EnvironmentFault(
            f"cannot listen on host {host!r}: {fault.strerror}; use 127.0.0.1 for this "
            "machine only or 0.0.0.0 for all its networks"
        ) from fault
    claimed = socket.socket(family, kind, protocol)
    # Without it, a port stays taken for a minute after a server with open connections.
    claimed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        claimed.bind(address)
    except OSError as fault:
        claimed.close()
        raise EnvironmentFault(_sentence(host, port, fault)) from fault
    return claimed


def free_ports(count: int) -> list[int]:
    """Ports that nobody used a moment ago, all different."""
    claimed = [claim_port("127.0.0.1", 0) for _ in range(count)]
    ports = [int(sock.getsockname()[1]) for sock in claimed]
    for sock in claimed:
        sock.close()
    return ports


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``; names that are none are refused.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
        (True, False)
    """
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return True  # nobody can listen there, which claim_port says better
    return all(ip_address(str(at[4][0]).split("%")[0]).is_loopback for at in found)


def url_of(claimed: socket.socket) -> str:
    """Where a client on this machine reaches a server on ``claimed``."""
    host, port = claimed.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _sentence(host: str, port: int, fault: OSError) -> str:
    match fault.errno:
        case errno.EADDRINUSE:
            return (
                f"port {port} on {host} is in use; stop the program that listens there "
                f"or choose another, as --port {port + 1 if port < 65_535 else 8000}"
            )
        case errno.EACCES:
            return f"port {port} on {host} needs administrator rights; use --port 8000"
        case errno.EADDRNOTAVAIL:
            return (
                f"{host} is no address of this machine; use 127.0.0.1 for this machine "
                "only or 0.0.0.0 for all its networks"
            )
        case _:
            return f"cannot listen on {host}:{port}: {fault.strerror}"
