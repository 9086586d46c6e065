"""Recognise portraits, which a model of photographs may be unable to judge.

A network that learnt from many generated faces and few photographed ones takes photographs of faces
for generated. A linear classifier finds portraits, so that they can be refused: it looks at the
network's features of the whole image, reduced to the network's input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from real_vs_ai.verdict import Reason, ReasonCode

# Share of the held-back real images of other sources that may be taken for portraits.
_FALSE_SHARE = 0.02
_REGULARISATION = 0.02

PORTRAIT = Reason(
    ReasonCode.PORTRAIT,
    "We take it for a portrait; that is a guess. This model cannot tell generated portraits from "
    "photographs.",
)


@dataclass(frozen=True)
class PortraitClassifier:
    """A linear classifier of the network's features.

    Attributes:
        weights: Shape (n_features,), float32.
        bias: Images whose score is above 0 are taken for portraits.
    """

    weights: np.ndarray
    bias: float

    def find(self, features: np.ndarray) -> np.ndarray:
        """Which images are portraits, by features (n, n_features) of the whole image: (n,) bool."""
        scores = features.astype(np.float32) @ self.weights + np.float32(self.bias)
        # "Not <=" and not ">", so that NaN is refused.
        return ~(scores <= 0)


def fit_portraits(
    features: np.ndarray, portraits: np.ndarray, sources: np.ndarray, held_back: np.ndarray
) -> PortraitClassifier:
    """Fit the classifier, and a limit that few held-back images exceed.

    Sources count by the square root of their size, portraits as much as all others.

    Args:
        features: Of the whole images, shape (n_images, n_features).
        portraits: Which of them are portraits, shape (n_images,), bool: some are, and some are not.
        sources: The data set each came from, shape (n_images,).
        held_back: Features of other images that mostly are no portraits, shape (n, n_features).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    fitted = LogisticRegression(C=_REGULARISATION, max_iter=1000)
    fitted.fit(scaler.transform(features), portraits, sample_weight=_weights(portraits, sources))
    weights = (fitted.coef_[0] / scaler.scale_).astype(np.float32)
    limit = np.quantile(held_back.astype(np.float32) @ weights, 1 - _FALSE_SHARE)
    return PortraitClassifier(weights, -float(limit))


def _weights(portraits: np.ndarray, sources: np.ndarray) -> np.ndarray:
    names, counts = np.unique(sources.astype(str), return_counts=True)
    weights = dict(zip(names.tolist(), counts**-0.5, strict=True))
    found = np.array([weights[name] for name in sources.astype(str).tolist()])
    for kind in (portraits, ~portraits):
        found[kind] /= found[kind].sum()
    return found * len(found) / 2
