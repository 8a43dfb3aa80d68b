"""The demonstration: gold machines to capture, and a report of the run."""
