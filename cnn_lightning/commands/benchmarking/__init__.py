"""What `benchmark` measures: each part of a run against a reference of its own."""
