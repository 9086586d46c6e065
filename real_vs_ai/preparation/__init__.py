"""Turn downloaded archives into labelled, split, merged and augmented folders; no TensorFlow."""

from real_vs_ai.core.errors import require_packages

# The app's packages alone do not have them.
require_packages("cv2", "joblib")
