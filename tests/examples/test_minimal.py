from examples.minimal import train


def test_it_learns_within_its_budget():
    results = train(epochs=4)
    assert len(results) == 4
    for result in results:
        assert 0 < result.used <= result.limit
        assert result.used > 0.5 * result.limit
    assert max(result.top1 for result in results) > 30  # 10 by chance
