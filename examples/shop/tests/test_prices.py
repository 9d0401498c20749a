from shop.prices import gross, in_range, net


def test_net():
    assert net(125) == 100


def test_gross():
    assert gross(100) == 125


def test_range():
    assert in_range(3, 1, 3)
    assert not in_range(4, 1, 3)
