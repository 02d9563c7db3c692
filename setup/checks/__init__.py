"""What judges this project: its tests in lanes, its rules for Prometheus, the length of its modules."""
