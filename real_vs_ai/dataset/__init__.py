"""List and decode labelled images, for training and evaluation."""

from real_vs_ai.core.errors import require_packages

# The app's packages alone do not have them.
require_packages("cv2", "joblib")
