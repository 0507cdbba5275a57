# /// script
# requires-python = ">=3.11"
# dependencies = ["scikd"]
# ///
"""A teacher that cannot be installed beside the student leaves its labels in a folder.

Here the "other environment" is a second process. Only the folder passes between the two.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from sklearn.datasets import load_diabetes
from sklearn.tree import DecisionTreeRegressor

from scikd import DistilledRegressor, LabelStore

TEACHER = """
import sys
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import cross_val_predict
from scikd import LabelStore
from scikd.quantities import VALUE

X, y = load_diabetes(return_X_y=True)
teacher = ExtraTreesRegressor(100, min_samples_leaf=3, random_state=0)
labels = cross_val_predict(teacher, X, y, cv=5)  # out of fold: in-sample labels would leak
about = {"name": "extra trees", "fingerprint": "extra-trees-v1", "inputs": X}
LabelStore(sys.argv[1]).write(**about, quantities=[VALUE], arrays={"value": labels})
"""


def main() -> None:
    """Write the labels in one process, and learn from them in another."""
    X, y = load_diabetes(return_X_y=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", TEACHER, folder], check=True)  # noqa: S603
        store = LabelStore(folder)
        files = sorted(path.name for path in Path(folder).rglob("*") if path.is_file())
        labels = store.read("extra trees", X)
        tree = DecisionTreeRegressor(max_depth=4, random_state=0)
        student = DistilledRegressor(labels, tree, random_state=0).fit(X, y)
        lines = [f"in the store: {', '.join(files)}", *map(str, store.entries())]
    lines.append(
        f"held-out mean squared error: teacher {student.teacher_loss_:.0f}, student alone "
        f"{student.student_loss_:.0f}; weight of the teacher {student.teacher_weight_:.2f}"
    )
    lines += [f"  weight {c.weight:.2f}: {c.loss:.0f}" for c in student.mixture_.candidates]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
