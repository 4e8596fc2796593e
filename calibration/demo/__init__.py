"""The demo detector: rendered training data, the model, its training, and its float ONNX files for the recipe."""
