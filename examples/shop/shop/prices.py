"""Prices with and without tax."""

TAX = 0.25


def net(gross):
    """The price without tax."""
    return gross * (1 + TAX)


def gross(net_price):
    """The price with tax."""
    return net_price * (1 + TAX)


def in_range(price, low, high):
    """Is the price in a range that includes both of its ends?"""
    return low <= price <= high
