"""From downloaded archives to labelled, split, merged and augmented folders; no TensorFlow here."""
