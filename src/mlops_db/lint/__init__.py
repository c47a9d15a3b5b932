"""The checks of revisions, for whoever writes the next one and for CI."""
