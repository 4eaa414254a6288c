"""Memory that is used again, and never by two at once."""

import numpy as np
import pytest

from lightning_ham.engines.kernels.workspace import Workspace

FLOAT = np.dtype(np.float32)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(Workspace, "_free", [])


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_goes_from_one_to_the_next():
    first = Workspace(100, FLOAT)
    at = address(first.take((100,)))
    del first
    assert address(Workspace(60, FLOAT).take((6, 10))) == at


def test_two_at_once_have_their_own():
    first, second = Workspace(100, FLOAT), Workspace(100, FLOAT)
    one, other = first.take((100,)), second.take((100,))
    assert not np.shares_memory(one, other)
    one[:], other[:] = 1, 2
    assert (one == 1).all()


def test_what_is_taken_does_not_overlap():
    workspace = Workspace(10, FLOAT)
    arrays = [workspace.take((2, 3)), workspace.take((4,)), workspace.take((0, 5))]
    for number, array in enumerate(arrays):
        array[:] = number
    assert [set(array.ravel()) for array in arrays] == [{0}, {1}, set()]


def test_more_than_there_is_cannot_be_taken():
    workspace = Workspace(10, FLOAT)
    workspace.take((6,))
    with pytest.raises(ValueError, match="at most 10 numbers"):
        workspace.take((5,))


def test_too_small_a_memory_is_not_used_again_and_other_types_may_use_it():
    first = Workspace(10, FLOAT)
    del first
    assert Workspace(1000, np.dtype(np.float64)).take((1000,)).dtype == np.float64
