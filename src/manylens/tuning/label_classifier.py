"""What images that a teacher did not describe probably show, by how like they are to those that it did.

In: features of the images, and descriptions of some. Out: for each other image, descriptions with their probabilities.
Promises: learned from the teacher's answers alone, how strongly is chosen by cross-validation on them, and nothing is
spread where that does no better than a guess. scikit-learn is imported here, when used.

A teacher is asked about a sample only, and a student that learns a hundred pictures by heart is none the better on the
others. A linear classifier is hard to beat with so few examples; but it knows no words, judges nothing and fits into no
run. So it teaches: the student learns from it on all pictures of the collection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from manylens.errors import ModelUnavailable
from manylens.tuning.pseudo_labels import SoftLabel

STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""Inverses of the ridge penalty, on features of unit variance."""

FOLDS = 5
FEWEST_ALIKE = 3
"""Descriptions that fewer images have are not spread: there is nothing to learn them from."""

SMALLEST_SHARE = 0.02


def spread_answers(
    features: NDArray[np.float32], words: Sequence[str], others: NDArray[np.float32], seed: int
) -> list[SoftLabel] | None:
    """features: (n, d) of images that are described by `words`. others: (m, d). Returns a soft label for each of the m;
    or None where descriptions hardly repeat, or cross-validation finds that features say nothing of them.

    Raises ModelUnavailable where scikit-learn is missing.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import KFold
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ModelUnavailable(
            "tuning needs the package scikit-learn, it is not installed", "pip install 'manylens[tune]'"
        ) from error
    counts = Counter(words)
    rows = [row for row, said in enumerate(words) if counts[said] >= FEWEST_ALIKE]
    names = sorted({words[row] for row in rows})
    if len(names) < 2 or not len(others) or len(rows) < len(words) / 2:
        return None
    said = np.array([names.index(words[row]) for row in rows])
    scaler = StandardScaler().fit(np.concatenate([features, others]))
    known, asked = scaler.transform(features[rows]), scaler.transform(others)
    folds = KFold(min(FOLDS, len(rows)), shuffle=True, random_state=seed)
    scores = []
    for strength in STRENGTHS:
        found = np.full((len(rows), len(names)), 1e-6)
        for train, test in folds.split(known):
            if len(set(said[train])) < 2:
                return None
            fold = LogisticRegression(C=strength, max_iter=500).fit(known[train], said[train])
            found[np.ix_(test, fold.classes_)] += fold.predict_proba(known[test])
        right = float(np.mean(found.argmax(1) == said))
        scores.append((float(np.mean(np.log(found[np.arange(len(rows)), said]))), right, strength))
    _, right, strength = max(scores)
    if right <= max(Counter(said.tolist()).values()) / len(rows):
        return None
    model = LogisticRegression(C=strength, max_iter=500).fit(known, said)
    shares = model.predict_proba(asked)
    soft_labels: list[SoftLabel] = []
    for row in shares:
        order = [int(k) for k in np.argsort(-row, kind="stable") if row[k] >= SMALLEST_SHARE]
        whole = float(row[order].sum())
        soft_labels.append(tuple((names[k], round(float(row[k]) / whole, 4)) for k in order))
    return soft_labels
