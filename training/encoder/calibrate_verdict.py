"""What a verdict's signals are worth: a logistic regression on groupings with known NMI, most of them left out of training.

    python calibrate_verdict.py signals.json

Prints the weights for `nano/verdict.py`, and by leaving one set out at a time: of groupings below NMI .30 the share that
is not called good, of those above .60 the share that is.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from manylens.models.nano.verdict import Signals

NAMES = ("closeness", "confidence", "refused", "agreement", "far", "spread")


def main() -> None:
    rows = json.loads(Path(sys.argv[1]).read_text())["signals"]
    x = np.asarray([[Signals(**{n: r[n] for n in NAMES}).row()[n] for n in NAMES] for r in rows])
    score = np.asarray([r["nmi"] for r in rows])
    left = np.asarray([r["left_out"] for r in rows])
    sets = np.asarray([r["task"].split(".")[0] for r in rows])
    weight = np.where(left, 2.0, 1.0)
    good = score >= 0.45

    def fit(use: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=1.0).fit(x[use], good[use], sample_weight=weight[use])

    whole = fit(np.ones(len(x), bool))
    print(
        {n: round(float(v), 2) for n, v in zip(NAMES, whole.coef_[0], strict=True)},
        "bias",
        round(float(whole.intercept_[0]), 2),
    )
    p = np.zeros(len(x))
    for name in sorted(set(sets)):
        p[sets == name] = fit(sets != name).predict_proba(x[sets == name])[:, 1]
    for part, name in ((left, "left out"), (~left, "given")):
        for good_from in (0.4, 0.5, 0.55, 0.6, 0.65, 0.7):
            low, high = part & (score < 0.3), part & (score > 0.6)
            print(
                f"{name}: good from {good_from}: of {low.sum()} below .30, {np.mean(p[low] < good_from):.2f} warned; of {high.sum()} above .60, {np.mean(p[high] < good_from):.2f}; not understood below .3: low {np.mean(p[low] < 0.3):.2f} high {np.mean(p[high] < 0.3):.2f}"
            )


if __name__ == "__main__":
    main()
