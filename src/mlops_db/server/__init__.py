"""Where a database comes from: connecting to it, creating it, and the pip-installed server."""
