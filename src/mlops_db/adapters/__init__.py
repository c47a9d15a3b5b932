"""Convert what other tools return to what the storage layer takes; each tool is an optional extra."""
