"""The files of a run's folder."""

from neq.runs import layout


def test_what_a_training_leaves_is_known_by_name(tiny_run):
    left = {path.name for path in tiny_run.iterdir()} - {layout.LOCK}
    assert left <= set(layout.CONTENT)
    assert left >= {layout.IDENTITY, layout.RECORD, layout.CONFIG, layout.SUMMARY, *layout.RESULTS}
    assert (tiny_run / layout.CHECKPOINTS / layout.BEST_WEIGHTS).is_file()
