"""A pool, guests and engines on one machine, for the demo and the tests; the product never imports it."""
