"""One command a host: whether this process is one of several, and how they find each other.

``jax.distributed`` does the work. What is decided here is whether to call it, and what is said where it cannot connect:
its own answer to that is to abort.
"""

import atexit
import errno
import os
import socket
import sys
import threading
from collections.abc import Mapping
from typing import NamedTuple

import jax

from jaxlm.core.errors import ALONE_CODE, AloneError, UserError
from jaxlm.io.agree import say
from jaxlm.run.arrivals import describe_arrivals

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""Of these jax itself reads the first; the others are named as its launchers name them."""

CLUSTERS = ("slurm", "ompi", "gcetpu", "gketpu")
"""jax's own detections that are asked. Not Kubernetes': it needs a package and rights; set the variables there."""

CONNECT_SECONDS = 300
HEARTBEAT_SECONDS = 100


class Launch(NamedTuple):
    """One process of several."""

    found_by: str
    """``"environment"``, or the name of one of CLUSTERS."""
    process_id: int
    num_processes: int
    coordinator: str | None
    """``host:port`` of process 0; None where jax asks the cloud for it."""

    def describe(self) -> str:
        """``process 0 of 2, coordinator host:1234 (slurm)``."""
        at = f", coordinator {self.coordinator}" if self.coordinator else ""
        return f"process {self.process_id} of {self.num_processes}{at} ({self.found_by})"


def detect_processes(environ: Mapping[str, str] = os.environ) -> Launch | None:
    """What the environment says of the processes of this run; None for a single one. Starts nothing.

    Raises UserError where some of VARIABLES are set and others are not, or hold what they cannot.
    """
    given = [name for name in VARIABLES if environ.get(name)]
    if len(given) == len(VARIABLES):
        launch = _from_variables(environ)
    else:
        launch = _from_cluster(environ)
        if launch is None and given:
            missing = [name for name in VARIABLES if name not in given]
            raise UserError(
                f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} set and {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not: set all three, or none for a single process"
            )
    return None if launch is None or launch.num_processes == 1 else launch


def require_single_process(command: str) -> None:
    """Raises UserError where the environment makes this one of several processes and the command is a single one."""
    if detect_processes() is not None:
        raise UserError(f"{command} is a single process: start it without the variables of a cluster")


def start_processes() -> None:
    """Joins the other processes of this run, if there are any. To be called before anything uses a device.

    A single process returns at once. Where there are several, standard output is kept for this command's own lines
    (libraries write to it from C++, and the last line is for programs to read).

    Raises UserError where the environment is incomplete, AloneError where the processes have not met after
    CONNECT_SECONDS ($JAXLM_CONNECT_SECONDS).
    """
    if jax.distributed.is_initialized():
        return
    launch = detect_processes()
    if launch is None:
        return
    _check_address(launch)
    _keep_stdout()
    _connect(launch, _seconds("JAXLM_CONNECT_SECONDS", CONNECT_SECONDS))
    say(f"{launch.num_processes} processes, found by {launch.found_by}")


def _from_variables(environ: Mapping[str, str]) -> Launch:
    address, *numbers = (environ[name] for name in VARIABLES)
    _check_host_port(address)
    for name, text in zip(VARIABLES[1:], numbers, strict=True):
        if not _is_number(text):
            raise UserError(f"{name}={text!r} is not a number")
    count, index = map(int, numbers)
    if index >= count:
        raise UserError(f"JAX_PROCESS_ID={index} is not one of 0..{count - 1} (JAX_NUM_PROCESSES={count})")
    return Launch("environment", index, count, address)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()  # "²" is a digit too, and no number


def _is_port(text: str) -> bool:
    return _is_number(text) and 1 <= int(text) <= 65535


def _check_host_port(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not _is_port(port):
        raise UserError(
            f"JAX_COORDINATOR_ADDRESS={address!r} is not host:port (1 to 65535): give the address of process 0"
        )


def _from_cluster(environ: Mapping[str, str]) -> Launch | None:
    """What jax's own detection finds, asked for TPUs only where they will be used."""
    try:
        from jax._src import clusters

        kinds = [kind for kind in clusters.ClusterEnv._cluster_types if kind.name in CLUSTERS]
    except (ImportError, AttributeError):  # another jax than was tested: the variables still work
        return None
    for kind in kinds:
        in_cloud = kind.name.endswith("tpu")
        if in_cloud and environ.get("JAX_PLATFORMS") == "cpu":
            continue
        try:
            if not kind.is_env_present():
                continue
            count, index = kind.get_process_count(), kind.get_process_id()
        except Exception as error:  # whatever its HTTP client raises
            raise UserError(
                f"cannot find out whether this host is one of several ({kind.name}: {type(error).__name__}: {error}): "
                f"set {', '.join(VARIABLES)}, or TPU_SKIP_MDS_QUERY=1 on a single TPU host"
            ) from error
        if count == 1:
            continue
        port = environ.get("JAX_COORDINATOR_PORT") or None
        if port is not None and not _is_port(port):
            raise UserError(f"JAX_COORDINATOR_PORT={port!r} is not a port: give a number from 1 to 65535")
        address = environ.get("JAX_COORDINATOR_ADDRESS") or None
        if address is not None:
            _check_host_port(address)
        if address is None and not in_cloud:
            address = kind.get_coordinator_address(timeout_secs=None, override_coordinator_port=port)
        return Launch(kind.name, index, count, address)
    return None


def _check_address(launch: Launch) -> None:
    """jax dies of a segmentation fault where the port of process 0 is taken."""
    if launch.coordinator is None or launch.process_id != 0:
        return
    port = int(launch.coordinator.rpartition(":")[2])
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} of coordinator {launch.coordinator} is in use on this host: end what holds it, or choose "
                "another port on all hosts (JAX_COORDINATOR_ADDRESS, or JAX_COORDINATOR_PORT under Slurm)"
            ) from error


def _connect(launch: Launch, seconds: int) -> None:
    """``jax.distributed.initialize`` in a thread: where it fails in C++ it would abort the process."""
    failure: list[BaseException] = []

    def initialize() -> None:
        explicit = launch.found_by == "environment"
        try:
            jax.distributed.initialize(
                coordinator_address=launch.coordinator,
                num_processes=launch.num_processes if explicit else None,
                process_id=launch.process_id if explicit else None,
                cluster_detection_method="deactivate" if explicit else launch.found_by,
                initialization_timeout=seconds + 60,  # this side gives up first
                heartbeat_timeout_seconds=_seconds("JAXLM_HEARTBEAT_SECONDS", HEARTBEAT_SECONDS),
            )
        except (RuntimeError, ValueError, OSError) as error:
            failure.append(error)

    thread = threading.Thread(target=initialize, name="jax.distributed", daemon=True)
    thread.start()
    try:
        thread.join(seconds)
    except KeyboardInterrupt:
        atexit.register(_exit_now, 130)
        raise
    if failure:
        kind = AloneError if isinstance(failure[0], RuntimeError) else UserError  # what the network said
        raise kind(f"cannot start {launch.describe()}: {' '.join(str(failure[0]).split())}") from failure[0]
    if thread.is_alive():
        # The thread cannot be stopped, and jax's own farewell would wait for it.
        atexit.register(_exit_now, ALONE_CODE)
        raise AloneError(f"{launch.describe()} has not met the others after {seconds} s: {_why(launch)}")


def _why(launch: Launch) -> str:
    if launch.process_id == 0 or launch.coordinator is None:
        port = launch.coordinator and int(launch.coordinator.rpartition(":")[2])
        who = describe_arrivals(port, launch.num_processes) if port else None
        ask = f"start the same command on all {launch.num_processes} hosts, with process ids 0 to the last"
        return f"{who}: {ask}" if who else ask
    host, _, port = launch.coordinator.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        return (
            f"{launch.coordinator} does not answer ({error}): start process 0 there, and check name, port and firewall"
        )
    return f"{launch.coordinator} answers, so another process is missing, or JAX_NUM_PROCESSES is too large"


def _exit_now(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _keep_stdout() -> None:
    """Python's stdout keeps the file it has; what C++ libraries print (Gloo does) goes to stderr."""
    try:
        if sys.stdout.fileno() == 1:
            sys.stdout.flush()
            sys.stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    except (OSError, ValueError, AttributeError):  # a notebook's stdout has no file
        return
    os.dup2(2, 1)


def _seconds(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not _is_number(text) or int(text) < 1:
        raise UserError(f"{name}={text!r} is not a number of seconds")
    return int(text)
