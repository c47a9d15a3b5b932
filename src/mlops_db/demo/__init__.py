"""A made-up past for an empty database: what happened, what was measured meanwhile, and how it is written down."""
