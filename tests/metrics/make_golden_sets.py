"""Writes ``tests/golden/set_metrics.json``: what the packages of the papers say of the embeddings of the tests.

In an environment of its own: ``pip install vendi-score==0.0.3 scikit-learn "scipy<1.14" torch-fidelity==0.4.0``, then
``python tests/metrics/make_golden_sets.py``. The kernel inception distance and CMMD are its "u-statistic", which leaves
out pairs of one index: of one image a prompt, those are the pairs of one prompt.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from make_features import features
from torch_fidelity.metric_kid import kernel_poly, kernel_rbf, mmd2
from vendi_score import vendi


def main() -> None:
    """Compute and write."""
    few, many = features(1, 5), features(2, 40)
    candidate, reference = features(3, 12), features(4, 12) * 1.1

    def unbiased(kernel: object, x: np.ndarray, y: np.ndarray, **options: float) -> float:
        k = lambda a, b: kernel(a, b, **options)  # noqa: E731
        return float(mmd2(k(x, x), k(x, y), k(y, y), mmd_est="u-statistic"))

    poly = {"kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}
    golden = {
        "vendi_few": float(vendi.score_X(few)),
        "vendi_many": float(vendi.score_dual(many)),
        "vendi_order_2_few": float(vendi.score_K(few @ few.T / np.outer(*[np.linalg.norm(few, axis=1)] * 2), q=2)),
        "kid": unbiased(kernel_poly, candidate, reference, **poly),
        "gaussian": unbiased(kernel_rbf, candidate, reference, kid_kernel_rbf_sigma=10.0),
    }
    path = Path(__file__).parents[1] / "golden" / "set_metrics.json"
    path.write_text(json.dumps(golden, indent=2) + "\n")


if __name__ == "__main__":
    main()
