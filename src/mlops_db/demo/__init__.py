"""A made-up year for an empty database: `story` has the events, `measurements` the metrics, and `fill` stores them."""
