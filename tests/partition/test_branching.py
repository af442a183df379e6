import pytest

from neq.partition import branched
from neq.partition.branching import branch_stages
from neq.utils.errors import UserError
from tests.partition.toys import ROWS, base, two, widths


def test_c_halves_what_the_last_block_makes():
    plain = base()
    stages = branch_stages(plain, "nnancna")
    assert [block.out_channels for block in stages[4]] == [8]
    assert [stages[number] for number in (0, 1, 2, 3, 5, 6)] == [
        plain.stages[number][0] for number in (0, 1, 2, 3, 5, 6)
    ]
    two_blocks = branch_stages(plain, "nncnana")[2]
    assert [block.out_channels for block in two_blocks] == [12, 6]


def test_a_branched_network_has_the_widths_that_are_given():
    made = branched(base(), "nnancna", widths(), "made", 0.01)
    assert (made.name, made.bn_momentum, made.sync) == ("made", 0.01, tuple("nnancna"))
    for branch in (0, 1):
        found = [[block.expanded for block in stage[branch]] for stage in made.stages]
        assert found == widths()[branch]


def test_what_cannot_be_branched_is_refused():
    with pytest.raises(UserError, match="network toy2 has two branches already"):
        branched(two(), "nnancna", widths(), "made")
    rows = [(13, *row[1:]) if number == 2 else row for number, row in enumerate(ROWS)]
    with pytest.raises(UserError, match="stage 2 of toy has 13 channels: c needs an even number"):
        branched(base(rows), "nncnana", widths(), "made")
