"""Meshes over devices that are not here: slices of TPUs, hosts of GPUs."""

from dataclasses import dataclass

import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.sharding.mesh import MeshConfig, make_mesh


@dataclass(frozen=True)
class Device:
    """As much of one as a mesh looks at."""

    id: int
    platform: str
    process_index: int
    slice_index: int
    device_kind: str = "some kind"


def hosts(platform, count=2, each=8):
    """What XLA says of the devices: it gives each host of GPUs a slice of its own."""
    return [Device(i, platform, i // each, i // each) for i in range(count * each)]


@pytest.mark.parametrize("config", [MeshConfig(fsdp=16), MeshConfig(stage=2, fsdp=8), MeshConfig(fsdp=2, model=8)])
def test_any_axis_may_span_hosts_of_gpus_the_outer_ones_first(config):
    devices = hosts("gpu")
    mesh = make_mesh(config, devices[::-1])
    assert [device.id for device in mesh.devices.flat] == list(range(16))


def test_only_copies_of_the_state_lie_on_several_slices_of_tpus():
    with pytest.raises(UserError, match=r"mesh.data=1 is not a multiple of the 2 slices"):
        make_mesh(MeshConfig(fsdp=16), hosts("tpu"))


def test_copies_lie_on_hosts_of_their_own():
    mesh = make_mesh(MeshConfig(fsdp=8), hosts("gpu"))
    found = np.vectorize(lambda device: device.slice_index)(mesh.devices).reshape(2, 8)
    assert (found == [[0], [1]]).all()
