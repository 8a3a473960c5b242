"""Who has come to the start of a run, and who has not: what the coordinator's host can say when its time is over.

jax's service tells nobody who has registered, but each process holds one connection to its port, and the kernel lists
those with the addresses they come from.
"""

import collections
import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_ESTABLISHED = "01"


def arrived(port: int, tables: tuple[str, ...] = ("/proc/net/tcp", "/proc/net/tcp6")) -> dict[str, int] | None:
    """Address -> connections from it to this port of this host; None where there is no such table (not Linux)."""
    found: collections.Counter[str] = collections.Counter()
    read = False
    for table in tables:
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        read = True
        for line in lines:
            _, local, remote, state, *_ = line.split()
            if state == _ESTABLISHED and int(local.rpartition(":")[2], 16) == port:
                found[_address(remote.rpartition(":")[0])] += 1
    return dict(found) if read else None


def _address(digits: str) -> str:
    """The kernel writes words of 32 bits in the machine's own order."""
    words = [int(digits[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(digits), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def expected_hosts(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The names of the hosts of this run, where the cluster says them: Slurm's node list, or a TPU's workers."""
    if nodes := environ.get("SLURM_JOB_NODELIST"):
        try:
            done = subprocess.run(["scontrol", "show", "hostnames", nodes], text=True, capture_output=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return []
        return done.stdout.split()
    return [name.strip() for name in environ.get("TPU_WORKER_HOSTNAMES", "").split(",") if name.strip()]


def describe_arrivals(port: int, num_processes: int, environ: Mapping[str, str] = os.environ) -> str | None:
    """``2 of 4 processes have come (from 10.0.0.1, 10.0.0.2), none from host3``; None where it cannot be known."""
    found = arrived(port)
    if found is None:
        return None
    froms = ", ".join(f"{address} ({count})" if count > 1 else address for address, count in sorted(found.items()))
    line = f"{sum(found.values())} of {num_processes} processes have come" + (f" (from {froms})" if froms else "")
    missing = [host for host in expected_hosts(environ) if not _addresses(host) & found.keys()]
    return f"{line}, none from {', '.join(missing)}" if missing else line


def _addresses(host: str) -> set[str]:
    """All addresses of a host by name; those of this one include its loopback."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return set()
    here = host in ("localhost", socket.gethostname(), socket.getfqdn())
    return found | ({"127.0.0.1", "::1"} if here else set())
