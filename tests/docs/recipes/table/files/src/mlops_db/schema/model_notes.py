"""Table model_notes: what people noted about models."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Identity, Index, Table, Text

from mlops_db.schema.base import metadata, moment_column, of_years

model_notes = Table(
    "model_notes",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True, comment="Counts the notes about all models."),
    Column("model_name", Text, nullable=False, comment="The model that it is about."),
    Column("note", Text, nullable=False, comment="The note, in words."),
    moment_column("noted_at", "When it was noted."),
    CheckConstraint(of_years("noted_at"), name="noted_at"),
    Index("model_notes_model_name_id_idx", "model_name", "id"),
    comment="What people noted about models.",
)
