"""The library: a room for each pipeline, and what they share. `docs/architecture.md` is the map."""
