"""List and decode labelled images, for training and evaluation."""

from real_vs_ai.cli import exit_without

# The scripts import this package before they can catch anything; see `preparation`.
exit_without("cv2", "joblib")
