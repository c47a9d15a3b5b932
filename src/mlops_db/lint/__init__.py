"""The checks of revisions: for the author of the next one, and for CI."""
