"""Training in several processes: the launch environment, the process group and its collectives."""

from neq.training.distributed.collectives import PATIENCE, SINGLE_PROCESS, ProcessGroup, ProcessLost

__all__ = ["PATIENCE", "SINGLE_PROCESS", "ProcessGroup", "ProcessLost"]
