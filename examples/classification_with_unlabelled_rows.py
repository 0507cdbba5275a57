# /// script
# requires-python = ">=3.11"
# dependencies = ["scikd"]
# ///
"""Few labels, many rows: teachers trained on 200 digits label 1,000 more for the student."""

from __future__ import annotations

import sys

from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from scikd import DistilledClassifier, TeacherEnsemble


def main() -> None:
    """Train with and without the unlabelled rows, and compare on test rows."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=597, stratify=y, random_state=0)
    X_unlabelled, X, y = X[200:], X[:200], y[:200]
    teachers = TeacherEnsemble(
        {
            "extra trees": ExtraTreesClassifier(200, random_state=0),
            "neighbours": KNeighborsClassifier(5, weights="distance"),
        }
    )
    tree = DecisionTreeClassifier(max_depth=8, min_samples_leaf=3, random_state=0)
    models = {
        "one tree alone": tree.fit(X, y),
        "distilled, labelled rows only": DistilledClassifier(
            teachers, tree, progress=False, random_state=0
        ).fit(X, y),
        "distilled, unlabelled rows too": DistilledClassifier(
            teachers, tree, progress=False, random_state=0
        ).fit(X, y, X_unlabelled=X_unlabelled),
    }
    lines = [f"{len(X)} labelled rows, {len(X_unlabelled)} unlabelled, {len(X_test)} test rows"]
    for name, model in models.items():
        proba = model.predict_proba(X_test)
        accuracy = accuracy_score(y_test, model.predict(X_test))
        loss = log_loss(y_test, proba)
        lines.append(f"  {name:<32} log-loss {loss:.3f}  accuracy {accuracy:.3f}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
