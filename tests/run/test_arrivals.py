"""Who has come: read from the kernel's own table, with real connections and real processes."""

import contextlib
import os
import socket
import stat

import pytest

from jaxlm.run.arrivals import arrived, describe_arrivals, expected_hosts
from tests.run.commands import finish, free_port, start, write_config

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="no /proc/net/tcp: not Linux")


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_connections_are_counted_by_the_address_they_come_from(family, address):
    if family == socket.AF_INET6 and not os.path.exists("/proc/net/tcp6"):
        pytest.skip("no IPv6 here")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(family))
        server.bind((address, 0))
        server.listen()
        port = server.getsockname()[1]
        assert arrived(port) == {}
        for _ in range(2):
            stack.enter_context(socket.create_connection((address, port)))
            stack.enter_context(server.accept()[0])
        assert arrived(port) == {address: 2}
        known = {"TPU_WORKER_HOSTNAMES": "localhost,no-such-host.invalid"}
        line = f"2 of 4 processes have come (from {address} (2))"
        assert describe_arrivals(port, 4, {}) == line
        assert describe_arrivals(port, 4, known) == f"{line}, none from no-such-host.invalid"


def test_slurm_says_its_hosts(tmp_path, monkeypatch):
    program = tmp_path / "scontrol"
    program.write_text('#!/bin/sh\n[ "$1 $2 $3" = "show hostnames n[1-2]" ] && printf "n1\\nn2\\n"\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert expected_hosts({"SLURM_JOB_NODELIST": "n[1-2]"}) == ["n1", "n2"]
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert expected_hosts({"SLURM_JOB_NODELIST": "n[1-2]"}) == []
    assert expected_hosts({}) == []


@pytest.mark.slow
def test_the_process_that_never_comes_is_counted(tmp_path):
    config = write_config(tmp_path, "num_steps=2, data=DataConfig(seq_len=32)")
    variables = {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}",
        "JAX_NUM_PROCESSES": "3",
        "JAXLM_CONNECT_SECONDS": "12",
        "TPU_WORKER_HOSTNAMES": "localhost,host7.invalid",
    }
    # The other stays longer: who has given up has left.
    ways = [{"JAX_PROCESS_ID": "0"}, {"JAX_PROCESS_ID": "2", "JAXLM_CONNECT_SECONDS": "20"}]
    processes = [start(config, tmp_path / "run", num_devices=1, **(variables | way)) for way in ways]
    (code, _, err), (other, _, _) = finish(processes)
    assert (code, other) == (2, 2)
    assert "2 of 3 processes have come" in err, err
    assert "none from host7.invalid" in err
