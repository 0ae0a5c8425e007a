"""Where raw data comes from beside your own code: databases, and files that others drop.

A use case's `fetch` may return what these give. It may also return or yield frames.
"""
