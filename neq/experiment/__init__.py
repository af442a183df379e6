"""A run from its resolved configuration to its folder."""
