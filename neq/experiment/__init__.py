"""A run from its resolved configuration to its folder, without a console; and the experiments of sweeps."""
