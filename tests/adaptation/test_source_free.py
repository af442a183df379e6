"""Pseudo labels of a round."""

import torch

from tests.adaptation.runs import adaptation, domains


def test_a_round_guesses_once_and_the_next_one_anew(tmp_path):
    with adaptation(tmp_path / "run", "shot", domains(tmp_path)) as (run, _):
        task, calls = run.task, []
        real = task._guessed

        def guessed():
            calls.append(None)
            return real()

        task._guessed = guessed
        first = next(task.batches(0, 0))[1]
        with torch.no_grad():
            run.network.stem.weight.neg_()
        assert torch.equal(next(task.batches(0, 0))[1], first)  # a policy had looked into the round
        assert len(calls) == 1
        next(task.batches(1, 0))
        assert len(calls) == 2
        next(task.batches(0, 0))
        assert len(calls) == 3  # after a trial that went on to another round
