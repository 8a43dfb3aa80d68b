"""What runs inside Nova: the compute driver and what it is made of, the
scheduler's weigher."""
