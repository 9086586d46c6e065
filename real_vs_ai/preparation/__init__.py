"""Turn downloaded archives into labelled, split, merged and augmented folders; no TensorFlow."""

from real_vs_ai.cli import exit_without

# The scripts import this package before they can catch anything. Who installed only the app's
# packages reads one line here, not a traceback.
exit_without("cv2", "joblib")
