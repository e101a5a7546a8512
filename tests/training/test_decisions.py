"""What the processes of a run propose, and when the agreed values come."""

from qtts_jax.training.decisions import Decisions
from qtts_jax.training.mesh import MeshConfig, TrainingMesh


def test_one_process_decides_at_once():
    decisions = Decisions(TrainingMesh(MeshConfig()).mesh)
    assert not decisions.late
    assert decisions((0, 15, -3)) == [0, 15, -3]
    assert decisions((1, 0, -2)) == [1, 0, -2]


def test_several_processes_get_the_values_of_the_call_before():
    decisions = Decisions(TrainingMesh(MeshConfig()).mesh)
    decisions.late = True
    assert decisions((0, 0, -3)) == [0, 0, -3]  # the first call waits
    assert decisions((0, 15, -2)) == [0, 0, -3]
    assert decisions((1, 0, -1)) == [0, 15, -2]
