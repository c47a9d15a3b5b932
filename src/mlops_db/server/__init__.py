"""Connects to databases, creates them, and runs the pip-installed server."""
