import torch

from neq.training.distributed import ProcessGroup
from neq.training.evaluation import sum_counts


def test_counts_of_two_processes_add_up_though_one_lacks_some(monkeypatch):
    sent = []
    monkeypatch.setattr(ProcessGroup, "gather", lambda self, own: sent.append(own) or [own])
    sum_counts({}, ProcessGroup(rank=1, count=2))  # a process without an image of the split
    monkeypatch.setattr(ProcessGroup, "gather", lambda self, own: [own, sent[0]])
    counts = {"images": 3, "hits": torch.tensor(2), "loss": torch.tensor(1.25, dtype=torch.float64)}
    found = sum_counts(counts, ProcessGroup(rank=0, count=2))
    assert {name: value.item() for name, value in found.items()} == {"images": 3, "hits": 2, "loss": 1.25}
    assert found["hits"].dtype == torch.int64
    monkeypatch.setattr(ProcessGroup, "gather", lambda self, own: [own, own])
    doubled = sum_counts(counts, ProcessGroup(rank=0, count=2))
    assert {name: value.item() for name, value in doubled.items()} == {"images": 6, "hits": 4, "loss": 2.5}


def test_a_process_alone_exchanges_nothing():
    counts = {"images": 3}
    assert sum_counts(counts, ProcessGroup()) is counts
