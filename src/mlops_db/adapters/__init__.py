"""What other tools hand over, put into the shape that the storage layer takes; each tool is an optional extra."""
