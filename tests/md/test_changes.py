"""What a change of a model does to a liquid, apart from its pressure."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones

from scikd.exceptions import MissingExtraError
from scikd.md import _changes
from scikd.md._changes import Changes, changes_of
from scikd.md.dynamics import DynamicsOptions, run_dynamics
from scikd.md.estimates import Estimate
from scikd.md.properties import LiquidProperties
from scikd.md.trajectories import Trajectory
from scikd.report import Report, Section

SIGMA, EPSILON = 3.4, 0.0104


def argon(epsilon):
    return LennardJones(sigma=SIGMA, epsilon=epsilon, rc=6.0, ro=5.0, smooth=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of two runs of a fluid, with attractions of different strength."""
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    fluid = Atoms("Ar64", grid * 3.9, cell=[15.6] * 3, pbc=True)
    fluid.set_array("molecules", np.arange(64))
    folders = []
    for epsilon in (EPSILON, 2 * EPSILON):
        folder = tmp_path_factory.mktemp("run")
        options = DynamicsOptions(
            ensemble="nvt", temperature=120.0, time="4ps", equilibration="1ps", timestep=5.0,
            trajectory_interval=4, minimise_steps=0, output=str(folder),
        )  # fmt: skip
        run_dynamics(options, atoms=fluid, calculator=argon(epsilon), progress=False)
        folders.append(folder)
    return tuple(folders)


def test_forces_of_a_model_and_of_its_double(runs):
    """The double's forces change by those of the model, on whatever frames."""
    found = changes_of(argon(EPSILON), argon(2 * EPSILON), runs)
    assert found.forces == pytest.approx(found.of_forces)
    assert changes_of(argon(EPSILON), argon(EPSILON), runs).forces == 0.0


def test_structure_is_shown_before_and_after(runs, tmp_path):
    """A stronger attraction has the higher first peak; the page holds table and picture."""
    pytest.importorskip("freud")
    pytest.importorskip("stacie")
    found = changes_of(argon(EPSILON), argon(2 * EPSILON), runs)
    peaks = [side.distributions[0].values.max() for side in (found.before, found.after)]
    assert peaks[1] > peaks[0] > 1.0
    numbers = found.as_dict()
    assert set(json.loads(json.dumps(numbers))) == {
        "forces_meV_A", "of_forces_meV_A", "before", "after",
    }  # fmt: skip
    items = found.items("argon")
    assert len(items) == 2
    page = Report("changes", [Section("argon", items)]).write_html(tmp_path / "page.html")
    assert ">100 %<" in page.read_text(encoding="utf-8")


def test_numbers_that_no_run_has_seen_change_are_not_compared_by_their_errors(tmp_path):
    """Two errors of zero would make any difference an endless number of standard errors."""
    still = Trajectory(
        np.zeros((2, 1, 3)), np.tile(9.0 * np.eye(3), (2, 1, 1)), np.arange(2.0), np.array([18]),
        np.array([0]), np.zeros(1), ("Ar",),
    )  # fmt: skip
    sides = (LiquidProperties(still, {"O around Li": Estimate(n, 0.0)}) for n in (4.0, 5.0))
    (table,) = Changes(1.0, 10.0, *sides).items("argon")
    assert table.rows[-1] == ["O around Li", "4", "5", ""]


def test_without_the_extra_forces_are_compared_alone(runs, monkeypatch, caplog):
    """The libraries for liquids are not needed to align."""

    def absent(library, **_):
        message = f"{library} is not installed"
        raise MissingExtraError(message)

    monkeypatch.setattr(_changes, "require", absent)
    with caplog.at_level("INFO"):
        found = changes_of(argon(EPSILON), argon(2 * EPSILON), runs)
    assert (found.before, found.after) == (None, None)
    assert "not installed" in caplog.text
    assert len(found.items("argon")) == 1
    assert set(found.as_dict()) == {"forces_meV_A", "of_forces_meV_A"}
