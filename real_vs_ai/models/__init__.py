"""Model files and run folders: metadata, input, the graph for OpenVINO; no TensorFlow by itself."""
