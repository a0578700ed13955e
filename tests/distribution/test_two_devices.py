"""Training on two devices gives the numbers of one; `test_one_device.py` has more devices and several workers."""

import pytest
from distributed_case import assert_same, pairs
from distributed_few import FEW
from distributed_runs import run_cases


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The arrays of every case on one and on two devices, see `run_cases`."""
    return run_cases("distributed_few", tmp_path_factory.mktemp("runs"), ("one", "cpu:2"))


@pytest.mark.parametrize("case", FEW)
def test_two_devices_end_with_the_weights_of_one(runs, case):
    one, ((kind, arrays),) = pairs(runs, case, ["cpu:2"])
    assert_same(one, arrays, kind, but=["logs of replica"])
