"""A database compared with what its revisions create."""
