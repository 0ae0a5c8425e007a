"""A model server: the champion of the registry over the Open Inference Protocol v2."""
