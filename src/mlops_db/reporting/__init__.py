"""What people look at: the health of the series, the report, and the dashboards.

It reads schema `reporting` and the views of `public`, and nothing that the reader role may not read.
"""
