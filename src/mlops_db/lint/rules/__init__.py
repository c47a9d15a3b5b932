"""The rules for what revisions do, one a module: what breaks it, and the remedy."""
