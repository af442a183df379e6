"""A run's folder: what is recorded in it, and the table of metrics."""
