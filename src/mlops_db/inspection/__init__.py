"""What a database or a revision is, compared with what it should be."""
