import contextlib
import socket

import pytest

from recsys_mtl.errors import EnvironmentFault
from serving.port import claim_port, free_ports, url_of


def test_a_port_in_use_is_named_and_another_proposed():
    with contextlib.closing(claim_port("127.0.0.1", 0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EnvironmentFault, match=rf"port {port} .*--port {port + 1}"):
            claim_port("127.0.0.1", port)


def test_a_port_is_taken_before_anybody_listens():
    with contextlib.closing(claim_port("127.0.0.1", 0)) as claimed:
        port = claimed.getsockname()[1]
        with (
            contextlib.closing(socket.socket()) as other,
            pytest.raises(OSError, match="in use"),
        ):
            other.bind(("127.0.0.1", port))


@pytest.mark.parametrize("host", ["192.0.2.77", "no.such.host.invalid"])
def test_a_host_that_is_not_ours_is_refused_with_a_proposal(host):
    with pytest.raises(EnvironmentFault, match=r"127\.0\.0\.1"):
        claim_port(host, 0)


def test_the_url_is_one_that_a_client_can_reach():
    with contextlib.closing(claim_port("0.0.0.0", 0)) as claimed:
        assert url_of(claimed) == f"http://127.0.0.1:{claimed.getsockname()[1]}"


def test_free_ports_differ():
    assert len(set(free_ports(20))) == 20
