"""The upkeep of this schema: status, adopt, retention, roles, and the pages that are generated from it."""
